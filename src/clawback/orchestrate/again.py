"""Goes on by itself with an incident that is open on a part that did not answer, or on what could not be proved.

Soon, then ever more rarely, and for as long as it is open. Where all parts answered and a proof is missing, more rarely
still: each time is a whole attempt, and leaves its lines in the journal.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from clawback.model import IncidentStatus
from clawback.orchestrate.engine import End

__all__ = ["Again"]

_FIRST_PAUSE = 0.5
_LONGEST_UNREACHED, _LONGEST_UNPROVED = 30.0, 900.0


class Again:
    """`start` goes on with an incident; `after` is told how each run ended."""

    def __init__(self, loop: asyncio.AbstractEventLoop, start: Callable[[str], None]) -> None:
        self._loop = loop
        self._start = start
        self._tries: dict[str, int] = {}
        self._pending: dict[str, int] = {}
        self._timers: dict[str, asyncio.TimerHandle] = {}

    def after(self, end: End) -> None:
        """Look at how a run ended."""
        if (timer := self._timers.pop(end.incident, None)) is not None:
            timer.cancel()
        if not (end.unreached or end.unproved) or end.status != IncidentStatus.OPEN.value:
            self._tries.pop(end.incident, None)
            self._pending.pop(end.incident, None)
            return
        if len(end.pending) < self._pending.get(end.incident, len(end.pending)):
            self._tries.pop(end.incident, None)  # it got further: the parts come back
        self._pending[end.incident] = len(end.pending)
        tried = self._tries.get(end.incident, 0)
        self._tries[end.incident] = tried + 1
        longest = _LONGEST_UNREACHED if end.unreached else _LONGEST_UNPROVED
        pause = min(_FIRST_PAUSE * 2 ** min(tried, 16), longest)
        self._timers[end.incident] = self._loop.call_later(pause, self._start, end.incident)

    def stop(self) -> None:
        """Not again."""
        for timer in self._timers.values():
            timer.cancel()
