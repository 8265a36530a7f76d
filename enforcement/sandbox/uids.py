"""One outer user id per agent, the same at every launch, as the agent's records say."""

from __future__ import annotations

import threading
from pathlib import Path

from clawback.enforcement.sandbox import inventory
from clawback.errors import NotEnforced

__all__ = ["Uids"]

_COUNT = 65_536


class Uids:
    """Gives out ids from `base` on. An id once given to an agent is never another's: files on disk may carry it."""

    def __init__(self, state: Path, base: int) -> None:
        self._base = base
        self._lock = threading.Lock()
        records, _ = inventory.read_all(state)
        self._known = {record.agent: record.uid for record in records if base <= record.uid < base + _COUNT}
        self._next = max([base - 1, *(record.uid for record in records if record.uid < base + _COUNT)]) + 1

    @property
    def given(self) -> range:
        """All that are agents', now or later."""
        return range(self._base, self._base + _COUNT)

    def known(self, agent: str) -> int | None:
        """The agent's id, if it ever had one."""
        return self._known.get(agent)

    def remember(self, agent: str, uid: int) -> None:
        """Bind an id to an agent; its record makes that last."""
        self._known.setdefault(agent, uid)

    def reserve(self) -> int:
        """An id that nobody has."""
        with self._lock:
            if self._next >= self._base + _COUNT:
                raise NotEnforced(
                    "no outer user ids are left", hint="remove agents that are gone from the state folder"
                )
            self._next += 1
            return self._next - 1
