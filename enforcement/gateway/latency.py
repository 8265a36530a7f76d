"""How long policy decisions took since somebody last asked: counts and the 99th percentile, in little memory."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from clawback.model import SLOW_DECISION_MS

__all__ = ["Latencies", "Latency"]

_FIRST_MS = 0.001
_GROWTH = 1.1  # each bucket's upper end over the one before: the percentile is at most a tenth too high
_BUCKETS = 240  # up to 0.001 ms · 1.1^239, more than two hours


@dataclass(slots=True)
class Latency:
    """One policy's decisions: how many, how many of them slow (`SLOW_DECISION_MS`), and how the times are spread."""

    decisions: int = 0
    slow: int = 0
    _buckets: list[int] = field(default_factory=lambda: [0] * _BUCKETS)

    def add(self, seconds: float) -> None:
        """Count one."""
        ms = seconds * 1e3
        self.decisions += 1
        self.slow += ms > SLOW_DECISION_MS
        at = 0 if ms <= _FIRST_MS else math.ceil(math.log(ms / _FIRST_MS, _GROWTH))
        self._buckets[min(at, _BUCKETS - 1)] += 1

    @property
    def p99_ms(self) -> float:
        """The upper end of the bucket in which the 99th of a hundred lies, in milliseconds; 0 without decisions."""
        left = math.ceil(0.99 * self.decisions)
        for at, count in enumerate(self._buckets):
            left -= count
            if left <= 0 < self.decisions:
                return round(_FIRST_MS * _GROWTH**at, 4)
        return 0.0


class Latencies:
    """By policy. Only policies in force are counted, so there are as many as those."""

    def __init__(self) -> None:
        self._since: dict[str, Latency] = {}

    def add(self, policy: str, seconds: float) -> None:
        """One decision took so long."""
        found = self._since.get(policy)
        if found is None:
            found = self._since[policy] = Latency()
        found.add(seconds)

    def take(self) -> dict[str, Latency]:
        """What there was since this was last asked."""
        taken, self._since = self._since, {}
        return taken
