"""From a rogue event to a contained agent and refused credentials: everything running, the journal on SQLite."""

from __future__ import annotations

from typing import Any

from benches.incidents import measured

__all__ = ["RUNS", "measure"]

RUNS = (20, 3)


def measure(n: int) -> dict[str, Any]:
    """`event_to_…`: frozen, egress_dead, verified, refused, in ms, over `n` runs."""
    return measured(n)
