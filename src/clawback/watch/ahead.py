"""Freeze ahead of the record's flush: an agent must not run on while something is being written down.

The kernel is told to freeze as soon as the journal says that the finding is not one that was answered long ago, and the
record is flushed meanwhile; if not even that is said in time, because others keep the disk busy, it is told all the
same. No hold is placed and nothing is claimed before the record: a freeze alone is undone without a trace, the event
that asks for it is on file and counts as unanswered, and a core that hears no more of it holds the agent itself.
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

SECONDS = 0.002  # what is known of a finding takes 0.5 ms to read

_log = structlog.get_logger()


@dataclass(slots=True)
class _Waiting:
    due: float
    freeze: Callable[[], object]
    decided: threading.Event = field(default_factory=threading.Event)
    done: threading.Event = field(default_factory=threading.Event)


class Ahead:
    """One thread that waits beside each record. `count` says how often it did not wait any longer."""

    def __init__(self, seconds: float = SECONDS) -> None:
        self.count = 0
        self._seconds = seconds
        self._queue: queue.SimpleQueue[_Waiting | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="ahead", daemon=True)
        self._thread.start()

    @contextmanager
    def of(self, freeze: Callable[[], object]) -> Iterator[Callable[[], None]]:
        """Inside, the record is made, and what is yielded freezes ahead of it. If not even that was called in the time
        allowed, `freeze` is called beside it; at the end no such call is under way any more.
        """
        waiting = _Waiting(time.monotonic() + self._seconds, freeze)
        if self._thread.is_alive():
            self._queue.put(waiting)
        else:
            waiting.done.set()

        def now() -> None:
            waiting.decided.set()
            _told(freeze)

        try:
            yield now
        finally:
            waiting.decided.set()
            waiting.done.wait()

    def stop(self) -> None:
        """Nobody waits any more."""
        self._queue.put(None)
        self._thread.join()

    def _run(self) -> None:
        go_first()
        while (waiting := self._queue.get()) is not None:
            if not waiting.decided.wait(max(0.0, waiting.due - time.monotonic())):
                self.count += 1
                _told(waiting.freeze)
            waiting.done.set()


def _told(freeze: Callable[[], object]) -> None:
    try:
        freeze()
    except ClawbackError as error:  # the reflex itself comes next, and answers for what it meets
        _log.warning("not frozen ahead of its record", error=error.message)
    except Exception:
        _log.exception("not frozen ahead of its record")
