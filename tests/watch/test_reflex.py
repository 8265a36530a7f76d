"""A finding contains the agent it is about, that instance and no other, whatever else is down."""

from __future__ import annotations

import sqlite3
import sys
import threading
import time
from dataclasses import replace

import pytest

from clawback.actions.agent_freeze import ACTION as FREEZE
from clawback.actions.agent_isolate import ACTION as ISOLATE
from clawback.errors import NotEnforced, Unreachable
from clawback.model import AgentState, Enforcement, IncidentStatus, Level, Phase, ReceiptState
from clawback.response import Response
from clawback.watch.ahead import Ahead
from clawback.watch.containment import NotRecorded
from clawback.watch.lanes import Lanes
from clawback.watch.reflex import Reflex
from clawback.watch.warm import warm


@pytest.fixture
def reflex(journal, world):
    made = Reflex(journal, world, lambda _detector: "contain-rogue-agent", ahead_seconds=60)
    yield made
    made.stop()


def test_freeze_then_isolate_each_with_its_receipt(reflex, journal, core, tools):
    core.add("support")
    answer = reflex.answer(tools.finding())
    assert answer.outcome == "contained"
    assert answer.opened
    assert answer.frozen_ms > 0
    assert core.calls == [("support", Level.FREEZE), ("support", Level.ISOLATE)]
    incident = journal.incident(answer.incident)
    assert [(item.action, item.state, item.actor) for item in incident.receipts] == [
        (FREEZE.id, ReceiptState.VERIFIED, "watch"),
        (ISOLATE.id, ReceiptState.VERIFIED, "watch"),
    ]
    assert incident.playbook == "contain-rogue-agent"
    assert not incident.drill


def test_the_reflex_goes_no_further_than_the_detector_asks(reflex, core, tools):
    core.add("support")
    assert reflex.answer(tools.finding(reflex=Level.FREEZE)).outcome == "contained"
    assert core.calls == [("support", Level.FREEZE)]


def test_an_alert_opens_an_incident_and_touches_nobody(reflex, journal, core, tools):
    core.add("support")
    answer = reflex.answer(tools.finding(reflex=None))
    assert answer.outcome == "alert"
    assert core.calls == []
    assert journal.incident(answer.incident).status is IncidentStatus.OPEN


def test_a_second_finding_joins_and_repeats_nothing(reflex, journal, core, tools):
    core.add("support")
    first = reflex.answer(tools.finding())
    second = reflex.answer(tools.finding(resource="/root/.ssh/id_rsa"))
    assert second.incident == first.incident
    assert not second.opened
    assert len(core.calls) == 2
    assert len(journal.incident(first.incident).findings) == 2


@pytest.mark.parametrize(
    ("changes", "outcome"),
    [
        ({"agent": "nobody", "instance": "nobody-1"}, "unknown-agent"),
        ({"instance": "support-0"}, "other-instance"),
        ({"agent": "other", "instance": "support-1"}, "other-instance"),
    ],
)
def test_forged_and_stale_findings_contain_nobody(reflex, journal, core, tools, changes, outcome):
    core.add("support")
    core.add("other")
    assert reflex.answer(tools.finding(**changes)).outcome == outcome
    assert core.calls == []
    assert journal.incidents() == ()
    assert reflex.counts[outcome] == 1


def test_an_agent_that_does_not_run_is_an_incident_without_reflex(reflex, journal, core, tools):
    core.add("support", state=AgentState.LOST)
    answer = reflex.answer(tools.finding())
    assert answer.outcome == "alert"
    assert core.calls == []
    assert any(line.what == "no reflex" for line in journal.incident(answer.incident).timeline)


def test_drills_are_marked(reflex, journal, core, tools):
    core.add("support", tags=("drill",))
    assert journal.incident(reflex.answer(tools.finding()).incident).drill


def test_without_a_core_nothing_is_claimed_and_the_next_try_does_it(reflex, journal, core, tools):
    core.add("support")
    core.away = True
    one = tools.finding()
    with pytest.raises(Unreachable):
        reflex.answer(one)
    assert journal.incidents() == ()
    core.away = False
    assert reflex.answer(one).outcome == "contained"


def test_without_a_journal_the_agent_is_contained_all_the_same(reflex, journal, core, tools, monkeypatch):
    core.add("support")
    one = tools.finding()

    def full(*_args, **_more):
        raise sqlite3.OperationalError("database or disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(journal, "open_or_join", full)
        with pytest.raises(NotRecorded):
            reflex.answer(one)
    assert core.held("support") == {Level.FREEZE, Level.ISOLATE}
    assert reflex.answer(one).outcome == "contained"
    assert len(journal.incidents()) == 1


def test_a_journal_that_fails_amid_the_reflex_does_not_stop_it(reflex, journal, core, tools, monkeypatch):
    core.add("support")
    one = tools.finding()

    def full(*_args, **_more):
        raise sqlite3.OperationalError("database or disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(journal, "intend", full)
        with pytest.raises(NotRecorded):
            reflex.answer(one)
    assert core.held("support") == {Level.FREEZE, Level.ISOLATE}
    answer = reflex.answer(one)
    assert answer.outcome == "contained"
    assert {item.state for item in journal.incident(answer.incident).receipts} == {ReceiptState.VERIFIED}


def test_a_journal_that_hangs_holds_up_no_containment(reflex, journal, core, tools):
    core.add("support")
    seen = []
    with journal.writing():  # as another process with the write lock would
        answering = threading.Thread(target=lambda: seen.append(reflex.answer(tools.finding())))
        answering.start()
        tools.eventually(lambda: core.held("support") == {Level.FREEZE, Level.ISOLATE})
        assert seen == []
    answering.join()
    assert seen[0].outcome == "contained"
    assert reflex.missed == 1


def test_a_freeze_does_not_wait_for_a_slow_record(journal, world, core, tools):
    early = Reflex(journal, world, lambda _detector: "p", ahead_seconds=0)
    core.add("support")
    try:
        with journal.writing():
            answering = threading.Thread(target=lambda: early.answer(tools.finding()))
            answering.start()
            tools.eventually(lambda: core.struck == ["support"])
            assert early.ahead == 1
            assert core.held("support") == set(), "nothing is ordered before the record"
            assert early.without_record == 0
        answering.join()
    finally:
        early.stop()
    assert core.held("support") == {Level.FREEZE, Level.ISOLATE}
    (incident,) = journal.incidents()
    assert {item.state for item in incident.receipts} == {ReceiptState.VERIFIED}


def test_a_freeze_waits_for_no_flush(reflex, journal, core, tools, monkeypatch):
    """Between the journal's word that the finding is no old one and the flush of the record."""
    core.add("support")
    whole = reflex._containment.intend_all

    def intend_all(*given):
        tools.eventually(lambda: core.struck == ["support"])
        return whole(*given)

    monkeypatch.setattr(reflex._containment, "intend_all", intend_all)
    assert reflex.answer(tools.finding()).outcome == "contained"
    assert reflex.ahead == 0, "the record was not slow"


def test_what_was_answered_long_ago_freezes_nobody_by_a_journal_that_is_not_slow(reflex, journal, core, tools):
    core.add("support")
    one = tools.finding()
    journal.close(reflex.answer(one).incident)
    core.struck.clear()
    assert reflex.answer(one).outcome == "closed"
    assert core.struck == []


def test_a_freeze_that_is_under_way_is_over_before_the_record_is():
    early, told, order = Ahead(0), threading.Event(), []

    def freeze():
        told.set()
        time.sleep(0.05)  # it takes its time
        order.append("frozen")

    try:
        with early.of(freeze):
            assert told.wait(10)
        order.append("recorded")
    finally:
        early.stop()
    assert order == ["frozen", "recorded"]
    with early.of(freeze) as decide:  # nobody waits any more, and freezing at once still does
        decide(True)
    assert order == ["frozen", "recorded", "frozen"]


def test_who_is_not_to_be_frozen_is_not_however_long_the_record_takes_then():
    frozen = []
    early = Ahead(0.5)
    try:
        with early.of(lambda: frozen.append(1)) as decide:
            decide(False)
            time.sleep(0.6)  # the record takes longer than is waited for a word
    finally:
        early.stop()
    assert (frozen, early.count) == ([], 0)


def test_a_journal_that_does_not_say_what_was_answered_keeps_nobody_from_being_frozen(
    reflex, journal, core, tools, monkeypatch
):
    core.add("support")
    monkeypatch.setattr(journal, "answered", lambda *_, **__: 1 / 0)
    reflex.hurry([tools.finding()])
    assert core.struck == ["support"]


def test_in_a_hurry_what_was_answered_long_ago_freezes_nobody(reflex, journal, core, tools):
    core.add("support")
    core.add("other")
    one = tools.finding()
    journal.close(reflex.answer(one).incident)
    core.struck.clear()
    reflex.hurry([one, tools.finding(agent="other", instance=core.known["other"].instance)])
    assert core.struck == ["other"]


def test_an_agent_released_since_is_contained_again(reflex, journal, core, tools):
    core.add("support")
    first = reflex.answer(tools.finding())
    core.known["support"] = replace(core.known["support"], hold=None)
    reflex.answer(tools.finding(resource="again"))
    assert core.held("support") == {Level.FREEZE, Level.ISOLATE}
    assert any(line.what == "agent.freeze again" for line in journal.incident(first.incident).timeline)


def test_telemetry_read_again_after_the_end_contains_nobody(reflex, journal, core, tools):
    core.add("support")
    one = tools.finding()
    first = reflex.answer(one)
    journal.close(first.incident)
    core.known["support"] = replace(core.known["support"], hold=None)
    calls = len(core.calls)
    assert reflex.answer(one).outcome == "closed"
    assert len(core.calls) == calls
    assert len(journal.incidents()) == 1


def replaying(journal, incident):
    """The recovery's replay of the rogue calls is under way."""
    return journal.intend(incident, "policy.validate", "policy.validate", Phase.RECOVER, {}, "test")


def test_the_recoverys_own_rehearsal_is_not_the_agents_doing(reflex, journal, core, tools):
    core.add("support")
    first = reflex.answer(tools.finding())
    replaying(journal, first.incident)
    core.add("support", "support-2")
    again = tools.finding(instance="support-2", policy_version=2)
    assert reflex.answer(again).outcome == "rehearsal"
    spike = tools.finding(instance="support-2", detector="sandbox.violation-spike", resource="violations", attempts=())
    assert reflex.answer(spike).outcome == "rehearsal"
    other = tools.finding(instance="support-2", resource="x", attempts=(("open", "/elsewhere"),))
    assert reflex.answer(other).outcome == "contained"


def test_once_recovery_is_over_the_same_call_is_the_agents(reflex, journal, core, tools):
    core.add("support")
    first = reflex.answer(tools.finding())
    before = time.time_ns()
    receipt = replaying(journal, first.incident)
    journal.applied(receipt.id, {})
    journal.verified(receipt.id, "each denied", Enforcement.FULL)
    core.add("support", "support-2")
    for at in (before, time.time_ns()):
        again = tools.finding(instance="support-2", policy_version=2, time_ns=at, events=(f"e{at}",))
        assert reflex.answer(again).outcome == "contained"


@pytest.mark.parametrize("cut", ["before", "intended", "applied", "between"])
def test_a_reflex_that_was_cut_off_is_finished_at_the_next_start(journal, world, core, tools, cut):
    core.add("support")
    one = tools.finding()
    incident, _ = journal.open_or_join(one, playbook="p")
    params = FREEZE.params(agent="support", instance="support-1", reason="r")
    key = f"{FREEZE.id}:{FREEZE.key(params)}"
    if cut in {"intended", "applied"}:
        receipt = journal.intend(
            incident, key, FREEZE.id, Phase.CONTAIN, params.model_dump(mode="json"), "watch", captured={}
        )
        if cut == "applied":
            journal.applied(receipt.id, {})
    if cut == "between":
        Response(journal, world, actor="watch", incident_id=incident.id).execute(FREEZE, params, phase=Phase.CONTAIN)
    again = Reflex(journal, world, lambda _detector: "p", ahead_seconds=60)
    assert again.resume() == (incident.id,)
    again.stop()
    assert core.held("support") == {Level.FREEZE, Level.ISOLATE}
    assert {item.state for item in journal.incident(incident).receipts} == {ReceiptState.VERIFIED}
    assert core.calls.count(("support", Level.FREEZE)) == 1


def test_resuming_leaves_a_recovered_agent_alone(journal, world, core, tools):
    core.add("support")
    incident, _ = journal.open_or_join(tools.finding(), playbook="p")
    journal.enter(incident, Phase.RECOVER)
    again = Reflex(journal, world, lambda _detector: "p", ahead_seconds=60)
    assert again.resume() == (incident.id,)
    again.stop()
    assert core.calls == []


def test_warming_up_leaves_no_trace(journal, world):
    warm(journal, world, connections=2)
    assert journal.incidents() == ()


def test_whoever_must_wait_is_frozen_meanwhile(reflex, core, tools):
    core.add("slow")
    core.add("support")
    begun, go_on, answered = threading.Event(), threading.Event(), []

    def answer(finding):
        begun.set()
        assert go_on.wait(10)
        return reflex.answer(finding)

    lanes = Lanes(answer, lambda finding, given: answered.append((finding.agent, given)), hurry=reflex.hurry, threads=1)
    try:
        lanes.put(tools.finding(agent="slow", instance="slow-1"))
        assert begun.wait(10)
        lanes.put(tools.finding())
        tools.eventually(lambda: core.struck)
        assert core.struck == ["support"]
        assert not answered
        go_on.set()
        tools.eventually(lambda: len(answered) == 2)
    finally:
        go_on.set()
        lanes.stop()
    assert [given.outcome for _, given in answered] == ["contained", "contained"]
    assert core.held("support") == {Level.FREEZE, Level.ISOLATE}
    assert lanes.counts["ahead"] == 1


def test_threads_change_hands_less_often_while_answers_wait_and_as_before_once_none_does(tools):
    usual = sys.getswitchinterval()
    begun, go_on, done = threading.Event(), threading.Event(), threading.Semaphore(0)

    def answer(finding):
        begun.set()
        assert go_on.wait(10)

    sys.setswitchinterval(0.001)
    try:
        lanes = Lanes(answer, lambda *_: done.release(), threads=1)
        for agent in ("a", "b", "c"):
            lanes.put(tools.finding(agent=agent, instance=f"{agent}-1"))
        assert begun.wait(10)
        assert sys.getswitchinterval() > 0.002
        go_on.set()
        assert all(done.acquire(timeout=10) for _ in range(3))
        lanes.stop()
        assert sys.getswitchinterval() == pytest.approx(0.001)
    finally:
        go_on.set()
        sys.setswitchinterval(usual)


@pytest.mark.parametrize(
    "changes", [{"agent": "nobody", "instance": "nobody-1"}, {"instance": "support-0"}, {"reflex": None}]
)
def test_nobody_is_frozen_ahead_who_would_not_be_contained(reflex, core, tools, changes):
    core.add("support")
    reflex.hurry([tools.finding(**changes)])
    assert (core.calls, core.struck) == ([], [])


def test_what_a_single_order_did_not_show_is_done_level_by_level(reflex, journal, core, tools, monkeypatch):
    core.add("support")

    def refuses(*_args, **_kwargs):
        raise NotEnforced("the namespace could not be entered")

    monkeypatch.setattr(core, "quarantine", refuses)
    answer = reflex.answer(tools.finding())
    assert answer.outcome == "contained"
    assert core.calls == [("support", Level.FREEZE), ("support", Level.ISOLATE)]
    assert [item.state for item in journal.incident(answer.incident).receipts] == [ReceiptState.VERIFIED] * 2


def test_what_is_about_no_agent_is_an_alert_that_asks_the_core_nothing(reflex, journal, core, tools):
    core.away = True
    answer = reflex.answer(tools.finding(agent="component:policy-engine", instance="component:policy-engine"))
    assert (answer.outcome, answer.opened) == ("alert", True)
    incident = journal.incident(answer.incident)
    assert not incident.about_agent
    assert not incident.drill
    again = reflex.answer(tools.finding(agent="component:policy-engine", instance="component:policy-engine"))
    assert again.incident == answer.incident
    assert reflex.resume() == (answer.incident,)


def test_where_all_is_rehearsed_that_is_a_drill_too(journal, world, tools):
    from clawback.watch.reflex import Reflex

    rehearsed = Reflex(journal, world, lambda _: "", drill=True)
    answer = rehearsed.answer(tools.finding(agent="policy:support", instance="policy:support"))
    assert journal.incident(answer.incident).drill
    rehearsed.stop()
