"""Hands incidents over by way of the journal, to whichever worker takes them: no responder of watch's own."""

from __future__ import annotations

import queue
import threading

import structlog

from clawback.errors import ClawbackError, NotFound
from clawback.journal import Journal

__all__ = ["Queue"]

_PAUSE = 1.0

_log = structlog.get_logger()


class Queue:
    """A `Handover`. A new incident is due by itself; this is for one that got further findings, or a person's word."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._waiting: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="handover", daemon=True)
        self._thread.start()

    def submit(self, incident: str) -> None:
        """Have a worker go on with it. Does not block."""
        self._waiting.put(incident)

    def tend(self) -> None:
        """Nothing to look after."""

    def stop(self) -> None:
        """End, once what was submitted is in the journal, if that answers."""
        self._stopping.set()
        self._waiting.put(None)
        self._thread.join()

    def _run(self) -> None:
        while (incident := self._waiting.get()) is not None:
            while not self._tell(incident) and not self._stopping.wait(_PAUSE):
                pass

    def _tell(self, incident: str) -> bool:
        try:
            self._journal.enqueue(incident)
        except NotFound:
            return True
        except ClawbackError as error:
            _log.warning("not handed over yet", incident=incident, reason=error.message)
            return False
        return True
