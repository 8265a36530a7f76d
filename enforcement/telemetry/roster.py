"""Which outer user id is which agent: the one name of a process that the kernel gives and an agent cannot choose."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["Roster", "Tracked", "uid_of"]

_UIDS = 65_536
_WAITING = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class Tracked:
    """What every event about an agent's instance says of it."""

    agent: str
    instance: str
    uid: int
    pid: int
    policy: str
    policy_version: int

    @property
    def fields(self) -> dict[str, Any]:
        """As arguments of an event."""
        return {
            "agent": self.agent,
            "instance": self.instance,
            "policy": self.policy,
            "policy_version": self.policy_version,
        }


class Roster:
    """Thread-safe. What happens under one of the agents' user ids before its instance is known here waits until it is:
    an agent's first milliseconds are reported like the others, at most 4,096 events of them.
    """

    def __init__(self, uid_base: int) -> None:
        self._range = range(uid_base, uid_base + _UIDS)
        self._lock = threading.Lock()
        self._tracked: dict[int, Tracked] = {}
        self._waiting: deque[tuple[int, Callable[[Tracked], None]]] = deque(maxlen=_WAITING)

    def add(self, tracked: Tracked) -> None:
        """From now on this user id is this instance; what waited for it is reported."""
        with self._lock:
            self._tracked[tracked.uid] = tracked
            ready = [report for uid, report in self._waiting if uid == tracked.uid]
            self._waiting = deque((item for item in self._waiting if item[0] != tracked.uid), maxlen=_WAITING)
        for report in ready:
            report(tracked)

    def expect(self, uid: int) -> None:
        """A new instance is about to start under this user id: what happens now is not the old one's."""
        with self._lock:
            self._tracked.pop(uid, None)

    def get(self, uid: int) -> Tracked | None:
        """The instance under this user id."""
        return self._tracked.get(uid)

    def expected(self, uid: int) -> bool:
        """The user id is an agent's, whether its instance is known yet or not."""
        return uid in self._range

    def report(self, uid: int, report: Callable[[Tracked], None]) -> bool:
        """Call `report` with the instance, now or when it is known; False where the user id is no agent's."""
        with self._lock:
            tracked = self._tracked.get(uid)
            if tracked is None:
                if uid not in self._range:
                    return False
                self._waiting.append((uid, report))
                return True
        report(tracked)
        return True


def uid_of(pid: int) -> int:
    """The effective user id of a process, -1 where it is gone. The folder's owner is exact even for undumpable ones."""
    try:
        return Path(f"/proc/{pid}").stat().st_uid
    except OSError:
        return -1
