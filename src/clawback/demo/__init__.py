"""The demo: one drill, shown as it happens."""

from clawback.demo.show import run

__all__ = ["run"]
