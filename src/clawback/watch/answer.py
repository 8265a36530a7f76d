"""What was done about a finding."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from clawback.model import Finding, Receipt

__all__ = ["Answer", "frozen_ms"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What was done about a finding.

    outcome    `contained`, `partly` (a level was not verified), `alert` (no reflex asked for or possible), `withheld`
               (the cap is reached: it waits), or why nothing was done: `unknown-agent`, `other-instance`, `rehearsal`,
               `closed`
    incident   its id; empty where the finding was refused
    frozen_ms  from the event's time to the core's answer to freeze; 0.0 where it was not made now
    """

    outcome: str
    incident: str = ""
    opened: bool = False
    receipts: tuple[Receipt, ...] = ()
    frozen_ms: float = 0.0
    drill: bool = False


def frozen_ms(receipts: Sequence[Receipt], finding: Finding) -> float:
    """From the event's time to when the core saw the tree frozen, by its own clock reading."""
    at = receipts[0].outcome.get("at_ns", 0) or receipts[0].applied_ns
    return max(0.0, (at - finding.time_ns) / 1e6)
