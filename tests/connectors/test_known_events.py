"""What is read once is not asked for again, and nothing that comes late is missed."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from clawback.connectors.known_events import KnownEvents, Listing
from clawback.world import TrailEvent

LAG = 10
ZERO = datetime(2026, 1, 1, tzinfo=UTC)


def at(seconds):
    return ZERO + timedelta(seconds=seconds)


def event(seconds):
    return at(seconds), TrailEvent(time_ns=seconds * 10**9, name="x", caller_key="k")


class Issuer:
    """Events, each with when it happened and by how much later it shows up; `asked` are the starts that were asked."""

    def __init__(self, events):
        self.events = events
        self.asked = []

    def read(self, now, start):
        self.asked.append(start)
        return {
            str(number): event(happened)
            for number, (happened, late) in enumerate(self.events)
            if happened + late <= now and (start is None or at(happened) >= start)
        }


def read(known, issuer, now, start):
    """As the connector does."""
    before = known.of("n", "v", start)
    fresh = issuer.read(now, before.until if before else start)
    whole = (before.listing.events if before else {}) | fresh
    known.keep("n", "v", start, Listing(whole))
    return whole


EVENTS = st.lists(st.tuples(st.integers(0, 100), st.integers(0, LAG)), max_size=30)
LOOKS = st.lists(st.tuples(st.integers(0, 120), st.none() | st.integers(0, 60)), min_size=1)


@given(events=EVENTS, looks=LOOKS)
def test_every_read_is_as_a_read_of_everything(events, looks):
    known, issuer = KnownEvents(LAG), Issuer(events)
    for now, start in sorted(looks, key=lambda look: look[0]):
        wanted = None if start is None else at(start)
        assert read(known, issuer, now, wanted) == Issuer(events).read(now, wanted)


def test_of_a_long_list_the_newest_part_alone_is_read_again():
    known, issuer = KnownEvents(0), Issuer([(second, 0) for second in range(100)])
    read(known, issuer, 200, at(5))
    read(known, issuer, 200, at(5))
    assert issuer.asked == [at(5), at(97)]
    read(known, issuer, 200, None)
    assert issuer.asked[-1] is None, "more is wanted than is known"
    read(known, issuer, 200, at(50))
    assert issuer.asked[-1] == at(97)


def test_a_thirty_third_list_is_kept_in_place_of_the_oldest():
    known = KnownEvents(0)
    for number in range(33):
        known.keep("n", str(number), None, Listing({"1": event(10)}))
    assert known.of("n", "0", None) is None
    assert known.of("n", "1", None) is not None


def test_an_event_from_the_future_hides_nothing():
    known, now = KnownEvents(0), datetime.now(UTC)
    known.keep("n", "v", None, Listing({"1": event(10), "2": (now + timedelta(days=365), event(0)[1])}))
    settled = known.of("n", "v", None)
    assert settled is not None
    assert settled.until <= datetime.now(UTC)
    assert list(settled.listing.events) == ["1"]


def test_what_was_left_out_is_said_until_it_is_before_what_is_wanted():
    known = KnownEvents(0)
    known.keep(
        "n", "v", None, Listing({"1": event(10), "2": event(90)}, ("some not read",), int(at(20).timestamp()) * 10**9)
    )
    assert known.of("n", "v", None).listing.left == ("some not read",)
    assert known.of("n", "v", at(19)).listing.left == ("some not read",)
    assert known.of("n", "v", at(20)).listing.left == ()
