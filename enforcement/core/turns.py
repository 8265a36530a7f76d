"""Lets few threads work on orders at the same time, for each further one costs the interpreter more than it brings.

A thread that waits for the interpreter wakes up ten thousand times a second to ask for it (`sys.setswitchinterval`);
one that waits here sleeps, and while one does the interpreter changes hands less often: with many orders to make, what
counts is when the last of them is made. Nobody waits longer than the patience: a kernel that is slow to grant one
agent's order must not hold another's up.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["Turns"]

AT_ONCE = 2
PATIENCE = 0.02  # seconds; an order takes two to ten milliseconds
_MOMENT = 0.2  # seconds
_BUSY_SWITCH = 0.002  # seconds between changes of hands while orders wait


class Turns:
    """Thread-safe."""

    def __init__(self, at_once: int = AT_ONCE, patience: float = PATIENCE) -> None:
        self._free = threading.BoundedSemaphore(at_once)
        self._patience = patience
        self._lock = threading.Lock()
        self._waiting = 0
        self._under_way = 0
        self._quiet_at = 0.0
        self._usual = sys.getswitchinterval()

    @property
    def busy(self) -> bool:
        """An order is being made, or was a moment ago."""
        return self._under_way > 0 or time.monotonic() < self._quiet_at

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Inside, it is this thread's turn, or the patience is over."""
        got = self._free.acquire(blocking=False) or self._wait()
        with self._lock:
            self._under_way += 1
        try:
            yield
        finally:
            with self._lock:
                self._under_way -= 1
                self._quiet_at = time.monotonic() + _MOMENT
            if got:
                self._free.release()

    def _wait(self) -> bool:
        self._count(1)
        try:
            return self._free.acquire(timeout=self._patience)
        finally:
            self._count(-1)

    def _count(self, change: int) -> None:
        with self._lock:
            self._waiting += change
            sys.setswitchinterval(_BUSY_SWITCH if self._waiting else self._usual)
