"""The journal that a command is about."""

from __future__ import annotations

from typing import TYPE_CHECKING

from clawback.cli.app import settings

if TYPE_CHECKING:
    from clawback.journal import Journal

__all__ = ["open_journal"]


def open_journal() -> Journal:
    """As the settings name it. `NotFound` where there is none: a new one would call a wrong folder sound and empty."""
    from clawback.journal import Journal

    return Journal(settings().journal, make=False)
