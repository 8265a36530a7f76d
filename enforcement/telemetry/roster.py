"""Which outer user id is which agent: the one name of a process that the kernel gives and an agent cannot choose."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["UIDS", "Roster", "Tracked", "uid_of"]

UIDS = 65_536
"""How many ids from the base on may be agents'."""

_WAITING = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class Tracked:
    """What every event about an agent's instance says of it; `since_ns` is when its command was about to start."""

    agent: str
    instance: str
    uid: int
    pid: int
    policy: str
    policy_version: int
    since_ns: int

    @property
    def fields(self) -> dict[str, Any]:
        """As arguments of an event."""
        return {
            "agent": self.agent,
            "instance": self.instance,
            "policy": self.policy,
            "policy_version": self.policy_version,
        }


Report = Callable[[Tracked], None]


class Roster:
    """Thread-safe. An agent keeps its user id when it is relaunched, so events are told apart by their time as well: a
    denial of the old instance that is read late must not be held against the new one.

    What happens under one of the agents' user ids before its instance is known here waits until it is: an agent's first
    milliseconds are reported like the others, at most 4,096 events of them.
    """

    def __init__(self, uid_base: int) -> None:
        self._range = range(uid_base, uid_base + UIDS)
        self._lock = threading.Lock()
        self._tracked: dict[int, Tracked] = {}
        self._before: dict[int, Tracked] = {}
        self._waiting: deque[tuple[int, int, Report]] = deque(maxlen=_WAITING)

    def add(self, tracked: Tracked) -> None:
        """From now on this user id is this instance; what waited for it is reported."""
        with self._lock:
            self._tracked[tracked.uid] = tracked
            ready = [(report, at_ns) for uid, at_ns, report in self._waiting if uid == tracked.uid]
            self._waiting = deque((item for item in self._waiting if item[0] != tracked.uid), maxlen=_WAITING)
        for report, at_ns in ready:
            report(self._at(tracked, at_ns))

    def expect(self, uid: int) -> None:
        """A new instance is about to start under this user id: what happens from now on is not the old one's."""
        with self._lock:
            old = self._tracked.pop(uid, None)
            if old is not None:
                self._before[uid] = old

    def get(self, uid: int) -> Tracked | None:
        """The instance under this user id."""
        return self._tracked.get(uid)

    def expected(self, uid: int) -> bool:
        """The user id is an agent's, whether its instance is known yet or not."""
        return uid in self._range

    def report(self, uid: int, report: Report, *, at_ns: int) -> bool:
        """Call `report` with the instance that the user id was at that time, now or when it is known.

        False where the user id is no agent's.
        """
        with self._lock:
            tracked = self._tracked.get(uid)
            if tracked is None:
                if uid not in self._range:
                    return False
                self._waiting.append((uid, at_ns, report))
                return True
        report(self._at(tracked, at_ns))
        return True

    def _at(self, tracked: Tracked, at_ns: int) -> Tracked:
        # The kernel's audit tells the time to the millisecond, rounded down.
        if at_ns + 1_000_000 <= tracked.since_ns:
            return self._before.get(tracked.uid, tracked)
        return tracked


def uid_of(pid: int) -> int:
    """The effective user id of a process, -1 where it is gone. The folder's owner is exact even for undumpable ones."""
    try:
        return Path(f"/proc/{pid}").stat().st_uid
    except OSError:
        return -1
