"""Notice lost telemetry: every writer numbers its events, so a gap is a loss and a repeat is a repeat."""

from __future__ import annotations

from collections import OrderedDict

from clawback.model import Event, Lifecycle

__all__ = ["Sequences"]


class Sequences:
    """`lost` events by gaps, `repeated` ones that came again or late, `dropped` by the writers' own count."""

    def __init__(self, *, writers: int = 1024) -> None:
        self.lost = 0
        self.repeated = 0
        self.dropped = 0
        self._writers = writers
        self._last: OrderedDict[tuple[str, str], int] = OrderedDict()

    def note(self, event: Event) -> int:
        """How many events are missing just before this one. The first of a writer tells nothing: reading may start amid
        its life.
        """
        if isinstance(event, Lifecycle):
            self.dropped += event.lost
        writer = (event.source, event.writer)
        last = self._last.get(writer)
        if last is None:
            self._last[writer] = event.sequence
            if len(self._last) > self._writers:
                self._last.popitem(last=False)
            return 0
        if event.sequence <= last:
            self.repeated += 1
            return 0
        self._last[writer] = event.sequence
        gap = event.sequence - last - 1
        self.lost += gap
        return gap
