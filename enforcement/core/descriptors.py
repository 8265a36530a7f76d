"""How many files the core may have open, and for how many agents that is enough."""

from __future__ import annotations

import os
import resource
from dataclasses import dataclass

__all__ = ["Descriptors", "read", "take_most"]

_EACH = 4
"""Of the core's, for one agent: two while it lives (counted with 40), as many again while it starts or is seized."""

_OWN = 300
"""For callers, telemetry and the core itself: 40 without any."""

_TIGHT = 0.9


@dataclass(frozen=True, slots=True)
class Descriptors:
    """`limit` is what the kernel lets this process have, `agents` how many agents that is enough for."""

    open: int
    limit: int
    agents: int

    @property
    def tight(self) -> bool:
        """Whether so many are open that the next start may fail."""
        return self.open > self.limit * _TIGHT


def take_most() -> None:
    """Raise the soft limit to the hard one: the usual 1,024 would be a limit on agents."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def read() -> Descriptors:
    """Of this process, as if its soft limit were raised."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    return Descriptors(
        open=len(os.listdir("/proc/self/fd")),  # noqa: PTH208 - names are wanted, at a tenth of the cost of paths
        limit=hard,
        agents=max(0, hard - _OWN) // _EACH,
    )
