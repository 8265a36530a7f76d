"""What was not reported, by reason and by agent: no loss is silent, and none is guessed at."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping

from clawback.enforcement.kernel.bpf_rate import Counted
from clawback.enforcement.telemetry.roster import Roster
from clawback.enforcement.telemetry.writer import TelemetryWriter

__all__ = ["Losses"]


class Losses:
    """Reads counters that only grow, and tells the writer by how much each has grown. Not thread-safe.

    A counter that says more than it did at the first reading counts from there: what the host lost before is not ours.
    """

    def __init__(self, writer: TelemetryWriter, roster: Roster) -> None:
        self._writer = writer
        self._roster = roster
        self._seen: Counter[str] = Counter()
        self._by_uid: dict[str, dict[int, int]] = {}

    def total(self, reason: str, now: int, *, first: int = 0) -> int:
        """A counter that knows no agent; `first` is what it stood at when we began. Returns the growth."""
        grown = now - self._seen.setdefault(reason, first)
        self._seen[reason] = now
        if grown > 0:
            self._writer.lose("", grown, reason)
        return max(0, grown)

    def by_agent(self, reason: str, now: Mapping[int, Counted], *, refused: Callable[[str, int], None]) -> int:
        """Counters by user id; `refused` is called with each agent and how many of its events the kernel kept back."""
        seen = self._by_uid.setdefault(reason, {})
        growth = 0
        for uid, counted in now.items():
            grown = counted.dropped - seen.get(uid, 0)
            if grown <= 0:
                continue
            tracked = self._roster.get(uid)
            agent = tracked.agent if tracked else ""
            seen[uid] = counted.dropped
            growth += grown
            self._writer.lose(agent, grown, reason)
            if agent:
                refused(agent, grown)
        return growth
