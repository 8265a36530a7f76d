"""How often each agent was refused something in the last hour, in sixty one-minute counters per agent."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable

__all__ = ["Violations"]

_MINUTES = 60


class Violations:
    """Counts by agent over a sliding hour, exact to a minute; of at most `agents`, the longest quiet go first."""

    def __init__(self, *, agents: int = 4096, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._agents = agents
        self._counts: OrderedDict[str, dict[int, int]] = OrderedDict()

    def add(self, agent: str, count: int = 1) -> None:
        """Note `count` refusals now."""
        minute = int(self._clock() // 60)
        minutes = self._counts.setdefault(agent, {})
        self._counts.move_to_end(agent)
        minutes[minute] = minutes.get(minute, 0) + count
        if len(minutes) > _MINUTES:
            for old in [key for key in minutes if key <= minute - _MINUTES]:
                del minutes[old]
        if len(self._counts) > self._agents:
            self._counts.popitem(last=False)

    def last_hour(self, agent: str) -> int:
        """Refusals in the hour that ends now."""
        oldest = int(self._clock() // 60) - _MINUTES
        return sum(count for minute, count in self._counts.get(agent, {}).items() if minute > oldest)

    def forget(self, agent: str) -> None:
        """Drop the agent's counters."""
        self._counts.pop(agent, None)
