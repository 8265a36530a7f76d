"""The cap: so many agents a minute without a person; what is beyond waits, is said, and is not lost."""

from __future__ import annotations

import time
from types import SimpleNamespace

import pytest

from clawback.actions.incident_triage import ACTION as TRIAGE
from clawback.model import IncidentStatus, Level, ReceiptState, Severity
from clawback.response import Response
from clawback.watch import cap as cap_module
from clawback.watch.cap import Cap
from clawback.watch.containment import NotRecorded
from clawback.watch.reflex import Reflex
from clawback.watch.withheld import TAKEN_OVER, WITHHELD, Withheld, waits

BOTH = {Level.FREEZE, Level.ISOLATE}


@pytest.fixture
def post(journal, world, core, tools, request):
    """A reflex under a cap of two, what it hands on, and its next lives."""
    made = []

    def start(per_minute=2):
        reflex = Reflex(journal, world, lambda _detector: "p", per_minute=per_minute, ahead_seconds=60)
        gone_on: list[str] = []
        withheld = Withheld(reflex.cap, journal, world.core, reflex.answer, gone_on.append)
        made.append(reflex)
        return SimpleNamespace(reflex=reflex, withheld=withheld, gone_on=gone_on)

    def rogue(at, name, **changes):
        core.add(name, **({"tags": changes.pop("tags")} if "tags" in changes else {}))
        return at.reflex.answer(
            tools.finding(agent=name, instance=f"{name}-1", resource=name, events=(f"e/{name}",), **changes)
        )

    yield SimpleNamespace(start=start, rogue=rogue)
    for reflex in made:
        reflex.stop()


@pytest.fixture
def clock(monkeypatch):
    """Both of the cap's clocks, to be set forward."""
    ahead = SimpleNamespace(seconds=0.0)
    monkeypatch.setattr(
        cap_module,
        "time",
        SimpleNamespace(
            monotonic=lambda: time.monotonic() + ahead.seconds,
            time_ns=lambda: time.time_ns() + round(ahead.seconds * 1e9),
        ),
    )
    return ahead


def test_beyond_the_cap_an_incident_alerts_and_waits(post, journal, core):
    at = post.start()
    outcomes = [post.rogue(at, name).outcome for name in ("a", "b", "c")]
    assert outcomes == ["contained", "contained", "withheld"]
    assert post.rogue(at, "a").outcome == "contained", "one that is contained already counts once"
    assert core.held("c") == set()
    waiting = next(one for one in journal.incidents() if one.agent == "c")
    assert waits(waiting)
    assert waiting.status is IncidentStatus.OPEN
    said = next(line for line in waiting.timeline if line.what == WITHHELD)
    assert "clawback contain c" in said.detail
    assert (at.reflex.cap.withheld, at.reflex.cap.waiting) == (1, 1)


def test_the_playbook_does_not_do_what_the_reflex_may_not(post, journal, world, core):
    at = post.start(1)
    post.rogue(at, "a")
    held_back = post.rogue(at, "b").incident
    response = Response(journal, world, "responder", held_back)
    triage = TRIAGE.params(agent="b", instance="b-1")
    assert response.execute(TRIAGE, triage).state is ReceiptState.UNVERIFIED
    # The one command.
    core.contain("b", Level.ISOLATE, reason="seen it", by="alice")
    at.withheld.look()
    assert at.gone_on == [held_back]
    assert response.execute(TRIAGE, triage).state is ReceiptState.VERIFIED
    assert at.reflex.cap.waiting == 0


def test_what_a_person_took_over_and_let_go_is_not_contained_again(post, journal, core):
    at = post.start(1)
    post.rogue(at, "a")
    held_back = post.rogue(at, "b").incident
    core.contain("b", Level.ISOLATE, reason="seen it", by="alice")
    at.withheld.look()
    core.add("b")  # released: a false alarm
    assert any(line.what == TAKEN_OVER for line in journal.incident(held_back).timeline)
    again = post.start(0)
    again.reflex.resume()
    again.withheld.look()
    assert core.held("b") == set()


def test_as_the_minute_passes_those_that_wait_are_contained_the_worst_first(post, core, clock):
    at = post.start(1)
    post.rogue(at, "a")
    post.rogue(at, "mild", severity=Severity.HIGH)
    post.rogue(at, "bad", severity=Severity.CRITICAL)
    at.withheld.look()
    assert core.held("bad") == set()
    clock.seconds += 61
    at.withheld.look()
    assert (core.held("bad"), core.held("mild")) == (BOTH, set())
    clock.seconds += 61
    at.withheld.look()
    assert core.held("mild") == BOTH
    assert at.reflex.cap.waiting == 0


def test_a_restart_forgets_neither_the_count_nor_what_waits(post, journal, core, clock):
    at = post.start(1)
    post.rogue(at, "a")
    post.rogue(at, "b")
    again = post.start(1)
    again.withheld.look()
    again.reflex.resume()
    assert post.rogue(again, "c").outcome == "withheld"
    assert core.held("b") == set()
    assert again.reflex.cap.waiting == 2
    assert sum(line.what == WITHHELD for one in journal.incidents() for line in one.timeline) == 2
    clock.seconds += 61
    again.withheld.look()
    assert core.held("b") == BOTH


def test_two_watches_on_one_journal_share_the_cap(post):
    one, other = post.start(1), post.start(1)
    assert post.rogue(one, "a").outcome == "contained"
    other.withheld.look()
    assert post.rogue(other, "b").outcome == "withheld"


def test_a_person_lifts_it_for_a_while(post, journal, core, clock):
    at = post.start(1)
    post.rogue(at, "a")
    for name in ("b", "c", "d"):
        post.rogue(at, name)
    journal.override(3, seconds=600, reason="a poisoned document, all of them", by="alice")
    at.withheld.look()
    assert [bool(core.held(name)) for name in "bcd"] == [True, True, False]
    journal.override(0, seconds=600, reason="all", by="alice")
    at.withheld.look()
    assert core.held("d") == BOTH
    clock.seconds += 601
    assert at.reflex.cap.per_minute == 1, "it ends by itself, even if nobody looks"
    journal.end_override("alice")
    clock.seconds = 0
    at.withheld.look()
    assert at.reflex.cap.per_minute == 1
    assert post.rogue(at, "e").outcome == "withheld"


def test_drills_neither_count_nor_wait(post, core):
    at = post.start(1)
    for name in ("d1", "d2", "d3"):
        assert post.rogue(at, name, tags=("drill",)).outcome == "contained"
    assert (dict(at.reflex.counts), dict(at.reflex.drills), at.reflex.last_frozen_ms) == ({}, {"contained": 3}, 0.0)
    assert post.rogue(at, "a").outcome == "contained"
    again = post.start(1)
    again.withheld.look()
    assert again.reflex.cap._count(time.monotonic()) == 1


def test_a_journal_that_fails_lifts_no_cap(post, journal, core, monkeypatch):
    at = post.start(1)
    post.rogue(at, "a")

    def full(*_args, **_more):
        raise OSError("disk full")

    with monkeypatch.context() as patch:
        patch.setattr(journal, "open_or_join", full)
        with pytest.raises(NotRecorded):
            post.rogue(at, "b")
    assert core.held("b") == set()
    assert post.rogue(at, "b").outcome == "withheld"


def test_a_clock_set_back_makes_no_longer_minute(journal, post, monkeypatch):
    at = post.start(1)
    post.rogue(at, "a")
    monkeypatch.setattr(
        cap_module,
        "time",
        SimpleNamespace(monotonic=lambda: time.monotonic() + 61, time_ns=lambda: time.time_ns() - 10**12),
    )
    fresh = Cap(1)
    fresh.look(journal)
    assert not fresh.admit("b")
    monkeypatch.setattr(
        cap_module, "time", SimpleNamespace(monotonic=lambda: time.monotonic() + 122, time_ns=time.time_ns)
    )
    assert fresh.admit("b")


def test_a_core_that_is_away_costs_nothing_but_time(post, core, clock):
    at = post.start(1)
    post.rogue(at, "a")
    post.rogue(at, "b")
    core.away = True
    clock.seconds += 61
    at.withheld.look()
    assert at.reflex.cap.waiting == 1
    core.away = False
    at.withheld.look()
    assert core.held("b") == BOTH
