"""Lets few threads work on orders at the same time, for each further one costs the interpreter more than it brings.

A thread that waits for the interpreter wakes up ten thousand times a second to ask for it (`sys.setswitchinterval`);
one that waits here sleeps. Nobody waits longer than the patience: a kernel that is slow to grant one agent's order must
not hold another's up.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["Turns"]

AT_ONCE = 2
PATIENCE = 0.02  # seconds; an order takes two to ten milliseconds


class Turns:
    """Thread-safe."""

    def __init__(self, at_once: int = AT_ONCE, patience: float = PATIENCE) -> None:
        self._free = threading.BoundedSemaphore(at_once)
        self._patience = patience

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Inside, it is this thread's turn, or the patience is over."""
        got = self._free.acquire(timeout=self._patience)
        try:
            yield
        finally:
            if got:
                self._free.release()
