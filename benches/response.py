"""From a rogue event to a contained agent and refused credentials: everything running, the journal on SQLite."""

from __future__ import annotations

from typing import Any

from benches.incidents import measured

__all__ = ["RUNS", "SECONDS", "measure"]

RUNS = (100, 3)  # of fewer there is no p99
SECONDS = 900.0


def measure(n: int) -> dict[str, Any]:
    """`event_to_…`: frozen, egress_dead, verified, refused, in ms, over `n` runs."""
    return measured(n)
