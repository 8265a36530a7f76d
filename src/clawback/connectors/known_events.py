"""What was read of CloudTrail before: events do not change, so only what is new, or may have been late, is read again.

An event shows up `lag` seconds late at most. So of a list whose newest event is of the time T, all that is older than
T - lag was there when it was read, by the issuer's own clock, which is believed as far as ours goes. Moments come in
whole seconds.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from clawback.world import TrailEvent

__all__ = ["Known", "KnownEvents"]

_LISTS = 32  # of up to 2,000 events each
_MARGIN = timedelta(seconds=2)

Events = dict[str, tuple[datetime, TrailEvent]]


@dataclass(frozen=True, slots=True)
class Known:
    """Events by id, oldest first, of those before `until`; the others are to be asked for."""

    until: datetime
    events: Events


class KnownEvents:
    """Thread-safe. A list is known by the attribute that was asked for; `start` is the beginning of what is wanted of
    it, None for all there is.
    """

    def __init__(self, lag: float) -> None:
        self._lag = timedelta(seconds=lag)
        self._lock = threading.Lock()
        self._lists: OrderedDict[tuple[str, str], tuple[datetime | None, datetime, Events]] = OrderedDict()

    def of(self, name: str, value: str, start: datetime | None) -> Known | None:
        """What is settled of a list; None where nothing is, or not from `start` on."""
        with self._lock:
            first, read, events = self._lists.get((name, value), (None, datetime.now(UTC), {}))
        if not events or (first is not None and (start is None or start < first)):
            return None
        until = min(read, max(at for at, _ in events.values())) - self._lag - _MARGIN
        if start is not None and until <= start:
            return None
        kept = {
            key: (at, event) for key, (at, event) in events.items() if at < until and (start is None or at >= start)
        }
        return Known(until, kept)

    def keep(
        self, name: str, value: str, start: datetime | None, events: Mapping[str, tuple[datetime, TrailEvent]]
    ) -> None:
        """A list that was read whole from `start` on, oldest first."""
        with self._lock:
            self._lists[name, value] = start, datetime.now(UTC), dict(events)
            self._lists.move_to_end((name, value))
            if len(self._lists) > _LISTS:
                self._lists.popitem(last=False)
