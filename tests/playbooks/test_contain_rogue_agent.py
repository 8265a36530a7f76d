"""The playbook by the real engine and journal: what fails leaves the agent contained, and nothing is done twice."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from clawback.actions import agent_freeze, agent_isolate
from clawback.errors import NotEnforced
from clawback.journal import Journal
from clawback.model import (
    Enforcement,
    Finding,
    Incident,
    IncidentStatus,
    Level,
    LevelResult,
    Phase,
    Receipt,
    ReceiptState,
    Severity,
)
from clawback.playbooks.contain_rogue_agent import PLAYBOOK
from clawback.response import Responder, Response, run_playbook

pytestmark = pytest.mark.slow

V = ReceiptState.VERIFIED


def finding(**changes: Any) -> Finding:
    values: dict[str, Any] = {
        "detector": "secrets.outside-allow-list",
        "agent": "a",
        "instance": "i1",
        "severity": Severity.CRITICAL,
        "technique": "T1552.001",
        "resource": "/root/.aws/credentials",
        "policy": "support",
        "policy_version": 2,
        "title": "Secret read outside the allow-list",
        "summary": "opened the decoy",
        "time_ns": time.time_ns(),
        "events": ("e1",),
        "reflex": Level.ISOLATE,
        "attempts": (("open", "/root/.aws/credentials"), ("connect", "files.partner.test:443")),
    }
    return Finding(**{**values, **changes})


class Case:
    """An opened incident and a way to run its playbook, as a new process would, any number of times."""

    def __init__(self, journal: Journal, there: Any, **changes: Any) -> None:
        self.journal, self.there = journal, there
        self.id = journal.open_or_join(finding(**changes), playbook=PLAYBOOK.id)[0].id

    def response(self) -> Response:
        return Response(self.journal, self.there.world, actor="responder", incident_id=self.id)

    def run(self) -> Incident:
        run = run_playbook(PLAYBOOK, Responder(self.response()))
        assert not run.error, run.error
        return run.incident

    def receipts(self, action: str) -> list[Receipt]:
        return [x for x in self.journal.incident(self.id).receipts if x.action == action]

    def state(self, action: str) -> ReceiptState | None:
        found = self.receipts(action)
        return found[-1].state if found else None


@pytest.fixture
def case(journal: Journal, there: Any) -> Case:
    return Case(journal, there)


def test_everything_verified_closes_the_incident(case: Case) -> None:
    ended = case.run()
    assert [(x.action, x.state, x.error) for x in ended.receipts if x.state is not V] == []
    assert ended.status is IncidentStatus.CLOSED
    core = case.there.core
    assert core.known["a"].hold is None
    assert core.known["a"].instance == "i1rr"  # observed first, then let go in full
    assert (core.known["a"].policy, core.known["a"].policy_version) == ("support", 3)
    assert core.known["a"].credentials[0].identifiers["accessor"] == "acc-2"
    assert "acc-1" not in case.there.vault.live


def test_phases_and_order(case: Case) -> None:
    case.run()
    ended = case.journal.incident(case.id)
    order = [x.action for x in sorted(ended.receipts, key=lambda x: x.verified_ns)]
    for earlier, later in [
        ("agent.freeze", "evidence.collect"),
        ("agent.freeze", "agent.isolate"),
        ("evidence.collect", "agent.seal"),
        ("evidence.collect", "vault.rotate-token"),
        ("evidence.collect", "agent.stop"),
        ("agent.stop", "agent.release"),
        ("vault.rotate-token", "agent.release"),
        ("policy.restore", "agent.release"),
        ("agent.release", "release.observe-only"),
        ("release.observe-only", "release.restricted"),
        ("release.restricted", "agent.relaunch"),
        ("agent.relaunch", "incident.review"),
    ]:
        assert order.index(earlier) < order.index(later), (earlier, later)
    assert {x.phase for x in ended.receipts} == set(Phase)


def test_the_reflex_is_adopted_not_repeated(case: Case) -> None:
    for action in (agent_freeze.ACTION, agent_isolate.ACTION):
        case.response().execute(action, action.params(agent="a", instance="i1", reason="reflex"), phase=Phase.CONTAIN)
    case.run()
    calls = case.there.core.calls
    assert calls.count("contain freeze") == calls.count("contain isolate") == 1


def test_a_second_run_does_nothing(case: Case) -> None:
    case.run()
    effects = [x for x in case.there.core.calls if not x.startswith(("agent", "probe"))]
    case.run()
    assert [x for x in case.there.core.calls if not x.startswith(("agent", "probe"))] == effects


@pytest.mark.parametrize("level", [Level.FREEZE, Level.ISOLATE, Level.STOP])
def test_containment_that_was_not_seen_is_never_released(case: Case, level: Level) -> None:
    case.there.core.lies.add(level)
    ended = case.run()
    assert ended.status is IncidentStatus.OPEN
    assert case.state(f"agent.{level.word}") is ReceiptState.UNVERIFIED
    assert case.state("agent.release") is ReceiptState.FAILED
    assert level in case.there.core.known["a"].hold.levels
    assert "release" not in case.there.core.calls
    assert "relaunch" not in case.there.core.calls


@pytest.mark.parametrize("level", [Level.RESTRICT, Level.SEAL])
def test_a_host_that_cannot_restrict_or_seal_recovers_and_stays_open(case: Case, level: Level) -> None:
    case.there.core.lies.add(level)
    ended = case.run()
    assert case.state("policy.validate") is V
    assert case.state(f"agent.{level.word}") is ReceiptState.UNVERIFIED
    assert ended.status is IncidentStatus.OPEN


def test_without_whole_evidence_nothing_is_destroyed(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    collect = case.there.core.evidence

    def tampered(agent: str, *, incident: str) -> Any:
        bundle = collect(agent, incident=incident)
        return replace(bundle, sha256="0" * 64)

    monkeypatch.setattr(case.there.core, "evidence", tampered)
    case.run()
    assert case.state("evidence.collect") is ReceiptState.UNVERIFIED
    for action in ("agent.seal", "agent.stop", "vault.rotate-token", "agent.release"):
        assert case.state(action) is ReceiptState.FAILED
    assert "acc-1" in case.there.vault.live
    assert set(case.there.core.known["a"].hold.levels) == {Level.FREEZE, Level.ISOLATE}
    monkeypatch.undo()
    assert case.run().status is IncidentStatus.CLOSED


def test_without_a_known_good_policy_it_stays_contained(case: Case) -> None:
    store = case.there.policies.texts["support"]
    store[0] = (replace(store[0][0], known_good=False), store[0][1])
    case.run()
    assert case.state("policy.restore") is ReceiptState.FAILED
    assert case.there.core.known["a"].hold is not None
    case.there.policies.mark_known_good("support", 1, author="soc")
    assert case.run().status is IncidentStatus.CLOSED


def test_with_vault_down_containment_holds_and_resume_completes(case: Case) -> None:
    case.there.vault.down = True
    ended = case.run()
    assert ended.status is IncidentStatus.OPEN
    assert case.state("agent.freeze") is V
    assert case.state("vault.rotate-token") is ReceiptState.INTENDED
    assert case.there.core.known["a"].hold is not None
    case.there.vault.down = False
    assert case.run().status is IncidentStatus.CLOSED
    assert case.there.vault.created == 1
    assert case.there.core.calls.count("contain stop") == 1


def test_a_recovery_that_is_not_proved_is_held_again(case: Case) -> None:
    core = case.there.core
    core.open_calls.add(("connect", "files.partner.test:443"))
    ended = case.run()
    assert ended.status is IncidentStatus.OPEN
    assert case.state("release.restricted") is ReceiptState.UNVERIFIED
    assert set(core.known["a"].hold.levels) == {Level.FREEZE, Level.ISOLATE}
    assert core.known["a"].instance == "i1r"
    # While it is held a replay would show nothing: it is not made, and what was seen stays on record.
    receipts = len(case.run().receipts)
    assert case.state("release.restricted") is ReceiptState.FAILED
    assert "NOT denied: connect files.partner.test:443" in case.receipts("release.restricted")[0].proof
    assert len(case.run().receipts) - receipts <= 2
    # Somebody lets it go without having mended the policy: the next run holds it once more.
    core.release("a", reason="x", by="analyst")
    case.run()
    assert set(core.known["a"].hold.levels) == {Level.FREEZE, Level.ISOLATE}
    core.release("a", reason="mended", by="analyst")
    core.open_calls.clear()
    assert case.run().status is IncidentStatus.CLOSED
    assert core.calls.count("relaunch") == 2
    assert core.known["a"].hold is None


def test_weaker_layers_after_the_relaunch_are_held_again(case: Case) -> None:
    case.there.core.weaker_after_relaunch = True
    case.run()
    assert case.state("release.observe-only") is ReceiptState.UNVERIFIED
    assert case.there.core.known["a"].hold is not None


def test_an_alert_alone_waits_for_a_person(journal: Journal, there: Any) -> None:
    case = Case(journal, there, detector="policy.unapproved-destination", severity=Severity.MEDIUM, reflex=None)
    ended = case.run()
    assert ended.status is IncidentStatus.OPEN
    assert there.core.known["a"].hold is None
    assert case.state("incident.scope") is V
    assert case.state("ticket.write") is V
    assert "acc-1" in there.vault.live
    there.core.contain("a", Level.FREEZE, reason="looks bad", by="operator:ann(1000)")
    assert case.run().status is IncidentStatus.CLOSED


def test_a_finding_with_nothing_to_replay_is_validated_by_what_no_policy_allows(journal: Journal, there: Any) -> None:
    case = Case(journal, there, detector="sandbox.down", attempts=())
    assert case.run().status is IncidentStatus.CLOSED
    assert "no rogue call is on record" in case.receipts("policy.validate")[0].proof


class Killed(BaseException):
    """The responder dies here."""


def _steps(journal: Journal, there: Any) -> int:
    Case(journal, there).run()
    return len(there.core.calls)


@pytest.mark.parametrize("share", range(24))
def test_killed_anywhere_it_resumes_and_repeats_nothing(journal: Journal, there: Any, share: int) -> None:
    """Dies before each 24th of the calls to the core, is started again, and ends where it would have ended."""
    case, seen = Case(journal, there), 0

    def die(_call: str) -> None:
        nonlocal seen
        seen += 1
        if seen % 24 == share:
            there.core.before_call = None
            raise Killed

    there.core.before_call = die
    for _ in range(3):
        try:
            ended = case.run()
            break
        except Killed:
            continue
    else:
        pytest.fail("it never came to an end")
    assert ended.status is IncidentStatus.CLOSED
    calls = there.core.calls
    assert (calls.count("relaunch"), calls.count("contain stop")) == (2, 1)
    assert there.vault.created == 1
    assert there.core.known["a"].instance == "i1rr"


def test_cut_off_while_saying_that_it_is_over_it_says_so_and_closes(
    case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    applied = case.journal.applied

    def die(receipt: int, outcome: Any) -> Receipt:
        if any(told.params["over"] for told in case.receipts("notify.send")):
            monkeypatch.undo()
            raise Killed
        return applied(receipt, outcome)

    monkeypatch.setattr(case.journal, "applied", die)
    with pytest.raises(Killed):
        case.run()
    assert case.state("notify.send") is ReceiptState.INTENDED
    assert case.run().status is IncidentStatus.CLOSED


@pytest.mark.parametrize("level", ["freeze", "isolate"])
def test_cut_off_before_it_held_a_recovery_again_that_is_proved_since(case: Case, level: str) -> None:
    """The hold was for an instance that the proved recovery goes on to replace: nothing of it is left to be held."""
    core = case.there.core
    core.open_calls.add(("connect", "files.partner.test:443"))

    def die(call: str) -> None:
        if call == f"contain {level}" and core.calls.count("relaunch"):
            core.before_call = None
            raise Killed

    core.before_call = die
    with pytest.raises(Killed):
        case.run()
    assert case.state(f"agent.{level}") is ReceiptState.INTENDED
    core.open_calls.clear()
    if core.known["a"].hold:
        core.release("a", reason="mended", by="analyst")
    ended = case.run()
    assert [(x.action, x.proof) for x in ended.receipts if x.state is not V] == []
    assert ended.status is IncidentStatus.CLOSED
    assert core.known["a"].instance == "i1rr"
    assert core.known["a"].hold is None
    assert "i1r is over" in case.receipts(f"agent.{level}")[-1].proof


def test_what_could_not_be_held_is_not_held_anew_once_it_is_let_go(case: Case) -> None:
    """Cut off between the release and the start: restricting it now would keep it from being started."""
    core = case.there.core
    core.lies.add(Level.RESTRICT)

    def die(call: str) -> None:
        if call == "relaunch":
            core.before_call = None
            raise Killed

    core.before_call = die
    with pytest.raises(Killed):
        case.run()
    assert (case.state("agent.release"), case.state("agent.restrict")) == (V, ReceiptState.UNVERIFIED)
    core.lies.clear()
    case.run()  # it is over only once the recovery replaced it, which comes after the step
    ended = case.run()
    assert [(x.action, x.proof) for x in ended.receipts if x.state is not V] == []
    assert (core.calls.count("contain restrict"), core.known["a"].instance) == (1, "i1rr")


@pytest.fixture
def lying(case: Case, monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """A core that answers the second start as if it had made it."""
    core = case.there.core
    start = core.relaunch

    def relaunch(agent: str, **given: Any) -> Any:
        if core.known[agent].instance == "i1":
            return start(agent, **given)
        return replace(core.known[agent], instance="made-up")

    with monkeypatch.context() as lie:
        lie.setattr(core, "relaunch", relaunch)
        yield lie


def test_after_a_start_that_was_made_up_whoever_runs_is_held(case: Case, lying: pytest.MonkeyPatch) -> None:
    core = case.there.core
    case.run()
    assert "which is not the one that was started" in case.receipts("agent.relaunch")[0].proof
    assert (core.known["a"].instance, set(core.enforced["a"])) == ("i1r", {Level.FREEZE, Level.ISOLATE})
    lying.undo()
    core.release("a", reason="the core is itself again", by="analyst")
    assert case.run().status is IncidentStatus.CLOSED
    assert (core.known["a"].instance, core.known["a"].hold) == ("i1rr", None)


@pytest.mark.parametrize("trouble", ["lying", "failing"])
def test_a_hold_against_a_recovery_that_is_proved_since_is_not_called_for(
    case: Case, lying: pytest.MonkeyPatch, trouble: str
) -> None:
    """Neither the start nor the hold was made; the next run starts it, and does not freeze what it has proved."""
    core = case.there.core
    contain = core.contain

    def order(agent: str, level: Level, **given: Any) -> Any:
        if core.known[agent].instance == "i1":
            return contain(agent, level, **given)
        if trouble == "failing":
            raise NotEnforced("no freezer")
        return LevelResult(level=level, enforcement=Enforcement.FULL, observed="done, believe me")

    lying.setattr(core, "contain", order)
    case.run()
    held = ReceiptState.UNVERIFIED if trouble == "lying" else ReceiptState.FAILED
    assert [case.state(f"agent.{level}") for level in ("freeze", "isolate")] == [held, held]
    assert case.state("agent.relaunch") is ReceiptState.UNVERIFIED
    lying.undo()
    ended = case.run()
    assert [(x.action, x.proof, x.error) for x in ended.receipts if x.state is not V] == []
    assert (ended.status, core.known["a"].instance, core.known["a"].hold) == (IncidentStatus.CLOSED, "i1rr", None)


def test_a_hold_against_a_replay_that_is_denied_since_is_not_called_for(case: Case) -> None:
    """No start comes after the last replay: what runs is the one that was not held, and it is proved now."""
    core = case.there.core

    def go_wrong(call: str) -> None:
        if core.known["a"].instance == "i1rr":
            core.open_calls.add(("connect", "files.partner.test:443"))
            if call.startswith("contain"):
                raise NotEnforced("no freezer")

    core.before_call = go_wrong
    case.run()
    assert case.receipts("policy.validate")[-1].state is ReceiptState.UNVERIFIED
    assert case.state("agent.freeze") is ReceiptState.FAILED
    core.before_call = None
    core.open_calls.clear()
    ended = case.run()
    assert [(x.action, x.proof, x.error) for x in ended.receipts if x.state is not V] == []
    assert "not called for any more, policy.validate is verified" in case.receipts("agent.freeze")[-1].proof
    assert (ended.status, core.known["a"].instance, core.known["a"].hold) == (IncidentStatus.CLOSED, "i1rr", None)


def test_a_later_walk_that_an_earlier_life_was_cut_off_in_keeps_nothing_open(case: Case) -> None:
    """It had found something alive to close; by now nothing is, and no run gets as far as that walk again."""
    params = {"agent": "a", "turn": 4}
    case.journal.intend(case.id, "credential.trace:a:4", "credential.trace", Phase.ERADICATE, params, "responder")
    assert case.run().status is IncidentStatus.CLOSED
    assert {receipt.state for receipt in case.receipts("credential.trace")} == {V}
