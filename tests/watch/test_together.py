"""Many findings at once: one record, one order, one record; whatever is not simply to be contained is done singly."""

from __future__ import annotations

import sqlite3
import threading
import time

import pytest

from clawback.errors import Unreachable
from clawback.model import IncidentStatus, Level, ReceiptState
from clawback.watch.lanes import MOST_TOGETHER, Lanes
from clawback.watch.reflex import Reflex

BOTH = {Level.FREEZE, Level.ISOLATE}


@pytest.fixture
def make_reflex(journal, world):
    made = []

    def make(**more):
        made.append(Reflex(journal, world, lambda _detector: "contain-rogue-agent", ahead_seconds=60, **more))
        return made[-1]

    yield make
    for one in made:
        one.stop()


@pytest.fixture
def reflex(make_reflex):
    return make_reflex()


@pytest.fixture
def findings(core, tools):
    for name in "abc":
        core.add(name)
    return [tools.finding(agent=name, instance=f"{name}-1") for name in "abc"]


def test_all_are_struck_then_ordered_together_and_each_has_its_receipts(reflex, journal, core, findings):
    answers = reflex.answer_all(findings)
    assert [answer.outcome for answer in answers] == ["contained"] * 3
    assert core.struck == ["a", "b", "c"]
    assert core.together == [("a", "b", "c")]
    for finding, answer in zip(findings, answers, strict=True):
        incident = journal.incident(answer.incident)
        assert (incident.agent, incident.playbook, answer.opened) == (finding.agent, "contain-rogue-agent", True)
        assert [(one.action, one.state, one.actor) for one in incident.receipts] == [
            ("agent.freeze", ReceiptState.VERIFIED, "watch"),
            ("agent.isolate", ReceiptState.VERIFIED, "watch"),
        ]
        assert all(one.proof and one.captured_ns and one.outcome for one in incident.receipts)
        assert answer.frozen_ms > 0
        assert core.held(finding.agent) == BOTH
    assert reflex.counts == {"contained": 3}


def test_the_intents_are_on_record_before_the_order(reflex, journal, core, findings, monkeypatch):
    order = core.quarantine_many
    seen = []

    def look(orders, **more):
        seen.extend(receipt.state for incident in journal.incidents() for receipt in incident.receipts)
        assert {one.incident for one in orders} == {incident.id for incident in journal.incidents()}
        return order(orders, **more)

    monkeypatch.setattr(core, "quarantine_many", look)
    reflex.answer_all(findings)
    assert seen == [ReceiptState.INTENDED] * 6


def test_each_goes_as_far_as_its_detector_asks(reflex, core, findings, tools):
    findings[1] = tools.finding(agent="b", instance="b-1", reflex=Level.FREEZE)
    reflex.answer_all(findings)
    assert [core.held(name) for name in "abc"] == [BOTH, {Level.FREEZE}, BOTH]


@pytest.mark.parametrize(
    "changes",
    [{"agent": "nobody", "instance": "nobody-1"}, {"instance": "b-0"}, {"reflex": None}],
    ids=["unknown", "another instance", "no reflex"],
)
def test_what_is_not_simply_to_be_contained_is_left(reflex, core, findings, tools, changes):
    findings[1] = tools.finding(**{"agent": "b", "instance": "b-1", **changes})
    answers = reflex.answer_all(findings)
    assert answers[1] is None
    assert [answer.outcome for answer in (answers[0], answers[2])] == ["contained"] * 2
    assert core.held("b") == set()


def test_a_known_finding_is_left_to_be_answered_singly(reflex, journal, findings):
    first = reflex.answer(findings[0])
    answers = reflex.answer_all(findings)
    assert answers[0] is None
    assert reflex.answer(findings[0]).incident == first.incident
    assert len(journal.incidents()) == 3


def test_a_drill_stays_one(reflex, journal, core, tools):
    for name in "ab":
        core.add(name, tags=("drill",))
    findings = [tools.finding(agent=name, instance=f"{name}-1") for name in "ab"]
    # A real watch freezes nobody in a drill ahead; what does not stand still is answered singly.
    assert reflex.answer_all(findings) == (None, None)
    assert core.struck == []
    assert reflex.answer(findings[0]).drill


def test_beyond_the_cap_nobody_is_contained(make_reflex, core, findings):
    reflex = make_reflex(per_minute=2)
    answers = reflex.answer_all(findings)
    assert [answer and answer.outcome for answer in answers] == ["contained", "contained", None]
    assert core.held("c") == set()
    assert reflex.answer(findings[2]).outcome == "withheld"


def test_a_level_that_was_not_seen_is_gone_on_with_singly(reflex, journal, core, findings, monkeypatch):
    probe = core.probe
    monkeypatch.setattr(core, "probe", lambda agent, level: probe("x" if agent == "b" else agent, level))
    core.add("x")
    answers = reflex.answer_all(findings)
    assert answers[1] is None
    incident = next(one for one in journal.incidents() if one.agent == "b")
    assert [receipt.state for receipt in incident.receipts] == [ReceiptState.APPLIED] * 2
    monkeypatch.undo()
    answer = reflex.answer(findings[1])
    assert (answer.outcome, answer.incident) == ("contained", incident.id)
    assert len(journal.incident(incident.id).receipts) == 2


def test_where_the_core_takes_no_order_each_is_answered_singly(reflex, journal, core, findings, monkeypatch):
    def away(*_arguments, **_more):
        raise Unreachable("the core does not answer")

    monkeypatch.setattr(core, "quarantine_many", away)
    assert reflex.answer_all(findings) == (None, None, None)
    assert [reflex.answer(finding).outcome for finding in findings] == ["contained"] * 3
    assert all(len(incident.receipts) == 2 for incident in journal.incidents())


def test_without_a_journal_they_are_contained_all_the_same(reflex, journal, core, findings, monkeypatch):
    def broken(*_arguments, **_more):
        raise sqlite3.OperationalError("disk I/O error")

    with monkeypatch.context() as patch:
        patch.setattr(journal, "open_or_join", broken)
        assert reflex.answer_all(findings) == (None, None, None)
    assert [core.held(name) for name in "abc"] == [BOTH] * 3
    assert reflex.without_record == 3
    assert journal.incidents() == ()
    assert [reflex.answer(finding).outcome for finding in findings] == ["contained"] * 3
    assert {incident.status for incident in journal.incidents()} == {IncidentStatus.OPEN}


def test_while_the_journal_waits_they_are_contained_beside_it(reflex, journal, core, findings, monkeypatch, tools):
    go_on, opened = threading.Event(), journal.open_or_join

    def slow(*arguments, **more):
        assert go_on.wait(10)
        return opened(*arguments, **more)

    monkeypatch.setattr(journal, "open_or_join", slow)
    thread = threading.Thread(target=reflex.answer_all, args=(findings,))
    thread.start()
    try:
        tools.eventually(lambda: all(core.held(name) == BOTH for name in "abc"))
        assert reflex.missed == 1
    finally:
        go_on.set()
        thread.join()
    assert len(journal.incidents()) == 3


def test_lanes_take_those_that_wait_together_and_leave_a_few_to_the_threads(reflex, core, tools):
    begun, go_on, answered, batches = threading.Event(), threading.Event(), [], []

    def answer(finding):
        if finding.agent == "first":
            begun.set()
            assert go_on.wait(10)
        return reflex.answer(finding)

    def together(findings):
        batches.append([finding.agent for finding in findings])
        return reflex.answer_all(findings)

    lanes = Lanes(
        answer, lambda finding, given: answered.append((finding.agent, given.outcome)), together=together, threads=1
    )
    names = [f"agent-{number:02}" for number in range(MOST_TOGETHER + 3)]
    for name in ("first", *names):
        core.add(name)
    try:
        lanes.put(tools.finding(agent="first", instance="first-1"))
        assert begun.wait(10)
        for name in names:
            lanes.put(tools.finding(agent=name, instance=f"{name}-1"))
        core.known["agent-05"] = core.add("agent-05", "agent-05-2")  # it is another instance by now
        lanes.put(tools.finding(agent="agent-07", instance="agent-07-1", time_ns=time.time_ns(), resource="/another"))
        go_on.set()
        tools.eventually(lambda: lanes.idle)
    finally:
        go_on.set()
        lanes.stop()
    assert batches[0] == names[:MOST_TOGETHER]
    assert sum(map(len, batches)) == len(names), "two of the last three went together: more than threads"
    assert sorted(agent for agent, _ in answered) == sorted(("first", *names, "agent-07"))
    assert [outcome for agent, outcome in answered if agent == "agent-05"] == ["other-instance"]
    assert lanes.counts["together"] == len(names) - 1


def test_a_defect_in_answering_together_costs_nobody_an_answer(reflex, core, tools):
    begun, go_on, answered = threading.Event(), threading.Event(), []

    def answer(finding):
        if finding.agent == "first":
            begun.set()
            assert go_on.wait(10)
        return reflex.answer(finding)

    def broken(_findings):
        raise RuntimeError("a defect")

    lanes = Lanes(answer, lambda finding, _: answered.append(finding.agent), together=broken, threads=1)
    for name in ("first", "a", "b", "c"):
        core.add(name)
    try:
        lanes.put(tools.finding(agent="first", instance="first-1"))
        assert begun.wait(10)
        for name in "abc":
            lanes.put(tools.finding(agent=name, instance=f"{name}-1"))
        go_on.set()
        tools.eventually(lambda: lanes.idle)
    finally:
        go_on.set()
        lanes.stop()
    assert sorted(answered) == ["a", "b", "c", "first"]
