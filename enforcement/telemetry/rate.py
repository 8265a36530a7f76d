"""How much one agent may write of one kind of event, so that a flood neither fills the disk nor hides another kind."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Hashable

__all__ = ["RateLimit"]


class RateLimit:
    """Token buckets by key: `rate` a second, `burst` at once, at most `keys` of them (the longest unused goes first).

    A forgotten key starts again with a full bucket, so `keys` must exceed what one agent can make up; keys are
    therefore made from what the writer knows (agent, event class), never from what an agent chose.
    """

    def __init__(
        self,
        rate: float = 200.0,
        burst: float = 1000.0,
        *,
        keys: int = 4096,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._rate = rate
        self._burst = burst
        self._keys = keys
        self._clock = clock
        self._buckets: OrderedDict[Hashable, tuple[float, float]] = OrderedDict()

    def allow(self, key: Hashable) -> bool:
        """Take one token; False where there is none."""
        now = self._clock()
        tokens, since = self._buckets.pop(key, (self._burst, now))
        tokens = min(self._burst, tokens + (now - since) * self._rate)
        granted = tokens >= 1.0
        self._buckets[key] = (tokens - 1.0 if granted else tokens, now)
        if len(self._buckets) > self._keys:
            self._buckets.popitem(last=False)
        return granted
