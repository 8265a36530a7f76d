"""Contain without a record where the record takes too long: a database that waits must not hold a reflex up."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import structlog

__all__ = ["Deadline"]

SECONDS = 0.25  # far beyond a healthy reflex (5 ms), far below a database's patience (10 s)
_LOOK_SECONDS = 0.05

_log = structlog.get_logger()


class Deadline:
    """Runs an answer's `instead` in a thread of its own, once, if the answer is not over in time.

    One thread looks every 50 ms; arming costs a dictionary entry and wakes nobody.
    """

    def __init__(self, seconds: float = SECONDS) -> None:
        self.missed = 0
        self._seconds = seconds
        self._armed: dict[int, tuple[float, Callable[[], None]]] = {}
        self._ids = itertools.count()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._look, name="deadline", daemon=True)
        self._thread.start()

    @contextmanager
    def armed(self, instead: Callable[[], None], *, more: float = 0.0) -> Iterator[None]:
        """Inside: if it takes longer than the time allowed, and `more` seconds, `instead` runs beside it."""
        number = next(self._ids)
        self._armed[number] = (time.monotonic() + self._seconds + more, instead)
        try:
            yield
        finally:
            self._armed.pop(number, None)

    def stop(self) -> None:
        """No longer look."""
        self._stopping.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._stopping.wait(_LOOK_SECONDS):
            now = time.monotonic()
            for number, (due, instead) in list(self._armed.items()):
                if due > now or self._armed.pop(number, None) is None:
                    continue
                self.missed += 1
                # A thread each: one core that hangs on one agent must not hold up the others.
                threading.Thread(target=_run, args=(instead,), name="deadline-missed", daemon=True).start()


def _run(instead: Callable[[], None]) -> None:
    try:
        instead()
    except Exception as error:
        _log.error("not contained after the deadline", error=type(error).__name__)
