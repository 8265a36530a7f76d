"""How one incident's run ended, for whoever asked for it."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["End"]


@dataclass(frozen=True, slots=True, kw_only=True)
class End:
    """How one incident's run ended; `pending` are `action state` of the steps that keep it open.

    unreached   some step waits for a part that did not answer: going on later may help
    unproved    some step was made, and could not be seen to have had its effect: likewise
    """

    incident: str
    status: str
    orchestration: str
    pending: tuple[str, ...]
    unreached: bool
    unproved: bool
    error: str
    elapsed_ms: float
    first_line_ms: float
