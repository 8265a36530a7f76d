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
_LOOK_SECONDS = 0.1

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
    def of(self, freeze: Callable[[], object]) -> Iterator[Callable[[bool], None]]:
        """Inside, the record is made, and what is yielded decides whether to freeze ahead of it: at once or never.
        If it was not called in the time allowed, `freeze` is called beside it; at the end no such call is under way.
        """
        waiting = _Waiting(time.monotonic() + self._seconds, freeze)
        self._queue.put(waiting)

        def decide(wanted: bool) -> None:  # noqa: FBT001 - the answer to one question
            waiting.decided.set()
            if wanted:
                _tell(freeze)

        try:
            yield decide
        finally:
            waiting.decided.set()
            while not waiting.done.wait(_LOOK_SECONDS) and self._thread.is_alive():
                pass

    def stop(self) -> None:
        """Nobody waits any more."""
        self._queue.put(None)
        self._thread.join()

    def _run(self) -> None:
        go_first()
        while (waiting := self._queue.get()) is not None:
            if not waiting.decided.wait(max(0.0, waiting.due - time.monotonic())):
                self.count += 1
                _tell(waiting.freeze)
            waiting.done.set()


def _tell(freeze: Callable[[], object]) -> None:
    try:
        freeze()
    except ClawbackError as error:  # the reflex itself comes next, and answers for what it meets
        _log.warning("not frozen ahead of its record", error=error.message)
    except Exception:
        _log.exception("not frozen ahead of its record")
