"""What was read of CloudTrail before: events do not change, so only what is new, or may have been late, is read again.

An event shows up `lag` seconds late at most. So of a list whose newest event is of the time T, all that is older than
T - lag was there when it was read, by the issuer's own clock, which is believed as far as ours goes. Moments come in
whole seconds. What of a list could not be read stays unread, and goes on being said.
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
    """Events by id, oldest first, of those before `until`; the others are to be asked for.

    `left` says what was left out of them, before `whole_ns` alone.
    """

    until: datetime
    events: Events
    left: str = ""
    whole_ns: int = 0


@dataclass(frozen=True, slots=True)
class _List:
    start: datetime | None
    read: datetime
    events: Events
    left: str
    whole_ns: int


class KnownEvents:
    """Thread-safe. A list is known by the attribute that was asked for; `start` is the beginning of what is wanted of
    it, None for all there is.
    """

    def __init__(self, lag: float) -> None:
        self._lag = timedelta(seconds=lag)
        self._lock = threading.Lock()
        self._lists: OrderedDict[tuple[str, str], _List] = OrderedDict()

    def of(self, name: str, value: str, start: datetime | None) -> Known | None:
        """What is settled of a list; None where nothing is, or not from `start` on."""
        with self._lock:
            one = self._lists.get((name, value))
        if one is None or not one.events or (one.start is not None and (start is None or start < one.start)):
            return None
        until = min(one.read, max(at for at, _ in one.events.values())) - self._lag - _MARGIN
        if start is not None and until <= start:
            return None
        kept = {
            key: (at, event) for key, (at, event) in one.events.items() if at < until and (start is None or at >= start)
        }
        if start is not None and one.whole_ns <= start.timestamp() * 1e9:
            return Known(until, kept)
        return Known(until, kept, one.left, one.whole_ns)

    def keep(
        self,
        name: str,
        value: str,
        start: datetime | None,
        events: Mapping[str, tuple[datetime, TrailEvent]],
        *,
        left: str = "",
        whole_ns: int = 0,
    ) -> None:
        """A list that was read from `start` on, oldest first; `left` says what was not, before `whole_ns` alone."""
        with self._lock:
            self._lists[name, value] = _List(start, datetime.now(UTC), dict(events), left, whole_ns)
            self._lists.move_to_end((name, value))
            if len(self._lists) > _LISTS:
                self._lists.popitem(last=False)
