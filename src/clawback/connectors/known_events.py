"""What was read of CloudTrail before: events do not change, so only what is new, or may have been late, is read again.

An event shows up `lag` seconds late at most. So of a list whose newest event is of the time T, all that is older than
T - lag was there when it was read, by the issuer's own clock, which is believed as far as ours goes. Moments come in
whole seconds. What of a list could not be read stays unread, and goes on being said.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from clawback.world import TrailEvent

__all__ = ["Known", "KnownEvents", "Listing"]

_LISTS = 32  # of up to 2,000 events each
_MARGIN = timedelta(seconds=2)

Events = dict[str, tuple[datetime, TrailEvent]]


@dataclass(frozen=True, slots=True)
class Listing:
    """Events by id, oldest first. `left` says what was left out of them, of the time before `whole_ns` alone."""

    events: Events
    left: tuple[str, ...] = ()
    whole_ns: int = 0


@dataclass(frozen=True, slots=True)
class Known:
    """The events of before `until`; the others are to be asked for."""

    until: datetime
    listing: Listing


@dataclass(frozen=True, slots=True)
class _Read:
    start: datetime | None
    at: datetime
    listing: Listing


class KnownEvents:
    """Thread-safe. A list is known by the attribute that was asked for; `start` is the beginning of what is wanted of
    it, None for all there is.
    """

    def __init__(self, lag: float) -> None:
        self._lag = timedelta(seconds=lag)
        self._lock = threading.Lock()
        self._lists: OrderedDict[tuple[str, str], _Read] = OrderedDict()

    def of(self, name: str, value: str, start: datetime | None) -> Known | None:
        """What is settled of a list; None where nothing is, or not from `start` on."""
        with self._lock:
            read = self._lists.get((name, value))
        if read is None or (read.start is not None and (start is None or start < read.start)):
            return None
        listing = read.listing
        newest = max((at for at, _ in listing.events.values()), default=None)
        if newest is None:
            return None
        until = min(read.at, newest) - self._lag - _MARGIN
        if start is not None and until <= start:
            return None
        kept = {
            key: (at, event)
            for key, (at, event) in listing.events.items()
            if at < until and (start is None or at >= start)
        }
        if start is not None and listing.whole_ns <= start.timestamp() * 1e9:
            return Known(until, Listing(kept))
        return Known(until, Listing(kept, listing.left, listing.whole_ns))

    def keep(self, name: str, value: str, start: datetime | None, listing: Listing) -> None:
        """A list as it was read from `start` on."""
        with self._lock:
            self._lists[name, value] = _Read(start, datetime.now(UTC), listing)
            self._lists.move_to_end((name, value))
            if len(self._lists) > _LISTS:
                self._lists.popitem(last=False)
