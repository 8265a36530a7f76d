"""Freeze ahead of the record where the disk is slow: an agent must not run on because something else is flushing.

The record comes first where it can: it takes about a millisecond. A disk that others keep busy may take tens. Freezing
before the record is safe then: it is undone without a trace, the event that asks for it is on file and counts as
unanswered until the record stands, and the core writes a hold with it.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import structlog

from clawback.errors import ClawbackError
from clawback.urgency import go_first

__all__ = ["Ahead"]

SECONDS = 0.002  # the median record takes 1.2 ms

_log = structlog.get_logger()


@dataclass(slots=True)
class _Waiting:
    due: float
    freeze: Callable[[], object]
    recorded: threading.Event = field(default_factory=threading.Event)


class Ahead:
    """One thread that waits beside each record. `count` says how often it did not wait any longer."""

    def __init__(self, seconds: float = SECONDS) -> None:
        self.count = 0
        self._seconds = seconds
        self._queue: queue.SimpleQueue[_Waiting | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="ahead", daemon=True)
        self._thread.start()

    @contextmanager
    def of(self, freeze: Callable[[], object]) -> Iterator[None]:
        """Inside, the record is made; if that takes longer than the time allowed, `freeze` is called beside it."""
        waiting = _Waiting(time.monotonic() + self._seconds, freeze)
        self._queue.put(waiting)
        try:
            yield
        finally:
            waiting.recorded.set()

    def stop(self) -> None:
        """Nobody waits any more."""
        self._queue.put(None)
        self._thread.join()

    def _run(self) -> None:
        go_first()
        while (waiting := self._queue.get()) is not None:
            if waiting.recorded.wait(max(0.0, waiting.due - time.monotonic())):
                continue
            self.count += 1
            try:
                waiting.freeze()
            except ClawbackError as error:  # the reflex itself comes next, and answers for what it meets
                _log.warning("not frozen ahead of its record", error=error.message)
            except Exception:
                _log.exception("not frozen ahead of its record")
