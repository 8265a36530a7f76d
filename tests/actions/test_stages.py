"""A release in stages: what each allows, what is seen of it, what takes it back, and how often without a person."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import pytest

from clawback.actions import (
    agent_relaunch,
    policy_restore,
    policy_validate,
    recovery_check,
    recovery_permit,
    release_observe,
    release_restricted,
    release_roll_back,
    release_watch,
)
from clawback.enforcement.policy.asked import asked, says
from clawback.enforcement.policy.loader import load
from clawback.errors import NotEnforced, NotFound, Refused, Unreachable
from clawback.model import (
    AgentState,
    Attempt,
    Disposition,
    Enforcement,
    HttpActivity,
    IncidentStatus,
    Level,
    Narrowing,
    NetworkActivity,
    ReceiptState,
    staged_from,
    staged_name,
)
from clawback.world import RecoveryTerms

COPY = staged_name("support", "a")
USED = Attempt(kind="http", target="GET http://api.internal:80/v1/tickets/7")


@pytest.fixture
def restored(drive: Any, there: Any) -> Any:
    """The known-good policy decides; the agent made one call of use, long before the incident."""
    drive(policy_restore.ACTION, policy="support", reason="incident").run()
    there.core.telemetry.write(
        HttpActivity,
        method="GET",
        host="api.internal",
        port=80,
        path="/v1/tickets/7",
        policy="support",
        instance="i1",
        time_ns=500_000_000,
    )
    return there


def observe(drive: Any) -> Any:
    step = drive(release_observe.ACTION, agent="a", instance="i1", reason="recover")
    assert step.run().verified
    return step


def restrict(drive: Any) -> Any:
    step = drive(release_restricted.ACTION, agent="a", instance="i1r", reason="recover")
    assert step.run().verified
    return step


def allows(there: Any, policy: str, call: Attempt) -> bool:
    network = load(there.policies.read(policy, there.policies.active(policy).version), where="t").network
    return says(network, asked(call)).allowed


def test_observe_only_allows_nothing_and_only_this_agent_is_under_it(drive: Any, restored: Any) -> None:
    step = observe(drive)
    info = restored.core.known["a"]
    assert (info.policy, info.instance) == (COPY, "i1r")
    assert staged_from(COPY) == "support"
    assert not allows(restored, COPY, USED)
    assert allows(restored, "support", USED)
    version = restored.policies.active(COPY)
    assert (version.incident, version.author) == ("INC-1", "tester")
    assert "observe-only" in version.reason
    assert step.run().verified
    assert restored.core.calls.count("relaunch") == 1


def test_observe_only_takes_a_policy_that_is_known_good(drive: Any) -> None:
    with pytest.raises(Refused, match="not known to be good"):
        drive(release_observe.ACTION, agent="a", instance="i1", reason="x").run()


def test_observe_only_that_lets_a_call_through_is_not_verified(drive: Any, restored: Any) -> None:
    restored.core.open_calls.add((USED.kind, USED.target))
    seen = drive(release_observe.ACTION, agent="a", instance="i1", reason="x").run()
    assert (seen.verified, seen.enforcement) == (False, Enforcement.NONE)
    assert "NOT denied: http GET http://api.internal" in seen.proof


def test_observe_only_that_the_engine_did_not_take_up_is_not_verified(drive: Any, restored: Any) -> None:
    step = observe(drive)
    restored.policies.put(COPY, restored.policies.read("support", 3), author="somebody", reason="behind its back")
    assert "which is not the stage's" in step.verify().proof
    assert not step.verify().verified


def test_observe_only_reverted_holds_the_agent_again(drive: Any, restored: Any) -> None:
    step = observe(drive)
    assert step.revert().verified
    assert {Level.FREEZE, Level.ISOLATE} <= set(restored.core.known["a"].hold.levels)
    restored.core.release("a", reason="x", by="somebody")
    assert step.action.verify_reverted
    assert not step.action.verify_reverted(step.context, step.params, step.captured).verified


def test_observe_only_reverted_before_it_began_changes_nothing(drive: Any, restored: Any) -> None:
    step = drive(release_observe.ACTION, agent="a", instance="i1", reason="x")
    step.captured = step.action.capture(step.context, step.params)
    assert step.revert().verified
    assert restored.core.known["a"].hold is None


def test_the_plan_of_a_stage_shows_the_difference(drive: Any, restored: Any) -> None:
    step = drive(release_observe.ACTION, agent="a", instance="i1", reason="x")
    changes = step.action.plan(step.context, step.params).changes
    assert any(line.startswith("-") and "api.internal" in line for line in changes)


def test_restricted_allows_what_was_of_use_and_none_that_was_rogue(drive: Any, restored: Any) -> None:
    observe(drive)
    step = restrict(drive)
    assert allows(restored, COPY, USED)
    assert not allows(restored, COPY, Attempt(kind="http", target="POST http://api.internal:80/v1/tickets/7"))
    assert not allows(restored, COPY, Attempt(kind="connect", target="files.partner.test:443"))
    assert restored.core.calls.count("relaunch") == 1
    assert step.revert().verified
    assert not allows(restored, COPY, USED)


@pytest.mark.parametrize("what", ["held", "instance", "not staged"])
def test_restricted_is_refused_where_nothing_was_observed(drive: Any, restored: Any, what: str) -> None:
    if what != "not staged":
        observe(drive)
    if what == "held":
        restored.core.contain("a", Level.FREEZE, reason="x", by="y")
    params = {"instance": "other"} if what == "instance" else {}
    with pytest.raises(Refused):
        drive(release_restricted.ACTION, agent="a", reason="x", **params).run()


def test_restricted_that_lets_a_rogue_call_through_is_not_verified(drive: Any, restored: Any) -> None:
    observe(drive)
    restored.core.open_calls.add(("connect", "files.partner.test:443"))
    seen = drive(release_restricted.ACTION, agent="a", reason="x").run()
    assert not seen.verified
    assert "NOT denied: connect files.partner.test:443" in seen.proof


def test_in_full_is_under_the_policy_itself_and_the_copy_allows_nothing(drive: Any, restored: Any) -> None:
    observe(drive)
    restrict(drive)
    step = drive(agent_relaunch.ACTION, agent="a", instance="i1r", reason="recover")
    assert step.run().verified
    info = restored.core.known["a"]
    assert (info.policy, info.instance) == ("support", "i1rr")
    assert not allows(restored, COPY, USED)
    assert step.run().verified
    assert restored.core.calls.count("relaunch") == 2
    restored.policies.put(COPY, restored.policies.read("support", 3), author="somebody", reason="behind its back")
    assert not step.verify().verified


def watch(drive: Any, there: Any, stage: str = "observe-only", **terms: float) -> Any:
    step = drive(release_watch.ACTION, agent="a", instance="i1r", stage=stage)
    step.context = replace(step.context, world=replace(there.world, recovery=RecoveryTerms(**terms)))  # type: ignore[arg-type]
    step.captured = dict(step.action.capture(step.context, step.params))
    return step


def refused(there: Any, host: str) -> None:
    about = {"agent": "a", "instance": "i1r", "policy": COPY, "disposition": Disposition.BLOCKED}
    there.core.telemetry.write(NetworkActivity, host=host, port=80, activity_id=NetworkActivity.REFUSE, **about)


def test_an_agent_that_behaves_is_clean_and_what_the_stage_holds_back_is_counted(drive: Any, restored: Any) -> None:
    observe(drive)
    step = watch(drive, restored, observe_seconds=0.05)
    refused(restored, "api.internal")
    seen = step.run()
    assert (seen.verified, step.outcome["clean"], step.outcome["held_back"]) == (True, True, 1)
    assert step.outcome["watched_ms"] >= 50


def test_a_call_that_its_own_policy_denies_is_misbehaviour(drive: Any, restored: Any) -> None:
    observe(drive)
    step = watch(drive, restored)
    refused(restored, "files.partner.test")
    seen = step.run()
    assert (seen.verified, seen.enforcement, step.outcome["clean"]) == (True, Enforcement.NONE, False)
    assert seen.proof.startswith("MISBEHAVED: it tried a call that support denies: connect files.partner.test:80")


@pytest.mark.parametrize("what", ["held", "lost", "replaced", "found"])
def test_what_happens_to_it_is_seen_at_once(
    drive: Any, restored: Any, make_incident: Any, make_finding: Any, what: str
) -> None:
    observe(drive)
    step = watch(drive, restored, observe_seconds=3600)
    if what == "held":
        restored.core.contain("a", Level.FREEZE, reason="again", by="reflex", incident="INC-2")
    elif what == "found":
        other = make_incident(id="INC-2", instance="i1r", findings=(make_finding(instance="i1r"),))
        step.context = replace(step.context, history=lambda _agent: (step.context.incident, other))
    else:
        changes = {"state": AgentState.LOST} if what == "lost" else {"instance": "i9"}
        restored.core.known["a"] = replace(restored.core.known["a"], **changes)
    assert step.run().proof.startswith("MISBEHAVED")


def test_a_finding_after_the_last_look_is_not_passed_over(drive: Any, restored: Any) -> None:
    observe(drive)
    step = watch(drive, restored)
    assert step.run().verified
    restored.core.contain("a", Level.FREEZE, reason="again", by="reflex")
    seen = step.verify()
    assert not seen.verified
    assert "and then: it was contained again" in seen.proof


def test_a_watch_is_gone_on_with_and_not_begun_anew(drive: Any, restored: Any) -> None:
    observe(drive)
    step = watch(drive, restored, observe_seconds=3600)
    step.captured["since_ns"] -= 3600 * 10**9
    assert step.run().verified


def test_an_agent_that_ends_by_itself_is_not_waited_for_and_is_started_anew(drive: Any, restored: Any) -> None:
    observe(drive)
    step = watch(drive, restored, observe_seconds=3600)
    restored.core.known["a"] = replace(restored.core.known["a"], state=AgentState.EXITED, exit_status=1)
    assert "it ended, exit status 1" in step.run().proof
    step = restrict(drive)
    info = restored.core.known["a"]
    assert (info.instance, info.policy, info.state) == ("i1rr", COPY, AgentState.RUNNING)
    assert step.run().verified
    assert restored.core.calls.count("relaunch") == 2


def test_an_agent_that_ends_while_it_is_tried_has_nothing_to_be_tried_in(
    drive: Any, restored: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(*_: Any) -> None:
        restored.core.known["a"] = replace(restored.core.known["a"], state=AgentState.EXITED, exit_status=1)
        raise NotEnforced("did not finish within 10 s")

    monkeypatch.setattr(restored.core, "attempt", gone)
    seen = drive(release_observe.ACTION, agent="a", instance="i1", reason="x").run()
    assert (seen.verified, seen.enforcement) == (True, Enforcement.PARTIAL)
    assert "nothing could be tried" in seen.proof


def test_without_telemetry_nothing_is_called_clean(drive: Any, restored: Any) -> None:
    observe(drive)
    step = watch(drive, restored)
    step.context = replace(step.context, world=replace(restored.world, telemetry_or_none=None))
    with pytest.raises(Unreachable):
        step.run()


def test_rolled_back_is_held_and_nothing_of_the_stages_is_left(drive: Any, restored: Any) -> None:
    observe(drive)
    restrict(drive)
    restored.policies.put("support", restored.policies.read("support", 2), author="x", reason="meanwhile")
    step = drive(release_roll_back.ACTION, agent="a", instance="i1r", reason="it misbehaved")
    assert step.run().verified
    assert not allows(restored, COPY, USED)
    assert restored.policies.active("support").sha256 == restored.policies.versions("support")[0].sha256
    restored.core.release("a", levels=(Level.FREEZE,), reason="x", by="somebody")
    assert "no hold orders freeze" in step.verify().proof
    assert not step.verify().verified


def test_it_is_held_though_the_gateway_is_down(drive: Any, restored: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def down(*_: Any, **__: Any) -> Any:
        raise Unreachable("the gateway does not answer")

    observed = observe(drive)
    step = drive(release_roll_back.ACTION, agent="a", instance="i1r", reason="it misbehaved")
    for name in ("versions", "active", "draft", "put", "restore"):
        monkeypatch.setattr(restored.policies, name, down)
    with pytest.raises(Unreachable):
        step.run()
    assert set(restored.core.known["a"].hold.levels) == {Level.FREEZE, Level.ISOLATE}
    restored.core.release("a", reason="x", by="somebody")
    with pytest.raises(Unreachable):
        observed.revert()
    assert set(restored.core.known["a"].hold.levels) == {Level.FREEZE, Level.ISOLATE}
    monkeypatch.undo()
    assert step.run().verified


@pytest.mark.parametrize("what", ["put", "draft"])
def test_what_the_gateway_answers_is_no_proof(
    drive: Any, restored: Any, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    observe(drive)
    if what == "put":  # as it is: nothing allowed
        monkeypatch.setattr(restored.policies, "put", lambda name, *_, **__: restored.policies.active(name))
    else:
        wide = restored.policies.draft("support", 2, Narrowing())
        monkeypatch.setattr(restored.policies, "draft", lambda *_, **__: wide)
    seen = drive(release_restricted.ACTION if what == "put" else release_roll_back.ACTION, agent="a", reason="x").run()
    assert not seen.verified


def test_after_the_watch_nothing_is_passed_over_and_nothing_made_up(drive: Any, restored: Any) -> None:
    observe(drive)
    step = watch(drive, restored)
    assert step.run().verified
    for change in ({"ended": True}, {"watched_ms": 10**9}, {"clean": False}):
        before, step.outcome = step.outcome, {**step.outcome, **change}
        assert not step.verify().verified, change
        step.outcome = before
    refused(restored, "files.partner.test")
    assert "and then: it tried a call that support denies" in step.verify().proof
    restored.core.telemetry.written.clear()
    assert "nobody would have seen what it did" in step.verify().proof


@pytest.mark.parametrize("lie", [Level.FREEZE, Level.ISOLATE])
def test_rolled_back_believes_only_what_it_probes(drive: Any, restored: Any, lie: Level) -> None:
    observe(drive)
    restored.core.lies.add(lie)
    assert not drive(release_roll_back.ACTION, agent="a", reason="x").run().verified


def test_rolled_back_without_stages_holds_all_the_same(drive: Any, restored: Any) -> None:
    seen = drive(release_roll_back.ACTION, agent="a", reason="x").run()
    assert seen.verified
    assert "no stage was open" in seen.proof
    with pytest.raises(NotFound):
        restored.policies.active(COPY)


def history(make_incident: Any, make_receipt: Any, *, applied_ns: int, state: Any = ReceiptState.VERIFIED) -> Any:
    receipts = (make_receipt("agent.relaunch", applied_ns=applied_ns, state=state),)
    return make_incident(id="INC-0", instance="i0", status=IncidentStatus.CLOSED, receipts=receipts)


@pytest.mark.parametrize(
    ("hours_ago", "most", "automatic"), [(None, 1, True), (1, 1, False), (30, 1, True), (1, 2, True), (None, 0, False)]
)
def test_how_often_it_is_brought_back_without_a_person(
    drive: Any,
    there: Any,
    make_incident: Any,
    make_receipt: Any,
    hours_ago: int | None,
    most: int,
    automatic: bool,
) -> None:
    step = drive(recovery_check.ACTION, agent="a", instance="i1")
    before = (
        ()
        if hours_ago is None
        else (history(make_incident, make_receipt, applied_ns=time.time_ns() - hours_ago * 3600 * 10**9),)
    )
    world = replace(there.world, recovery=RecoveryTerms(most=most))
    step.context = replace(step.context, world=world, history=lambda _agent: (*before, step.context.incident))
    seen = step.run()
    assert seen.verified
    assert step.outcome["automatic"] is automatic
    assert ("stays stopped" in seen.proof) is not automatic


def test_permitting_waits_for_a_person_and_changes_nothing(drive: Any) -> None:
    assert recovery_permit.ACTION.consent
    assert drive(recovery_permit.ACTION, agent="a", instance="i1").run().verified


def test_a_denial_that_nobody_logged_is_not_validated(drive: Any, there: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr("clawback.actions._logged._WAIT_SECONDS", 0.0)
    there.core.telemetry.deaf = True
    seen = drive(policy_validate.ACTION, agent="a", replaced="i0").run()
    assert not seen.verified
    assert "denied, and not logged: open /root/.aws/credentials" in seen.proof


def test_in_a_stage_the_policy_itself_must_deny_the_rogue_calls_too(drive: Any, restored: Any) -> None:
    observe(drive)
    wide = restored.policies.put("support", restored.policies.read("support", 2), author="x", reason="y")
    seen = drive(policy_validate.ACTION, agent="a", replaced="i1", stage="observe-only").run()
    assert not seen.verified
    assert f"NOT denied by support version {wide.version}: connect files.partner.test:443" in seen.proof


def test_a_limit_that_only_the_stage_set_is_not_missed_afterwards(
    drive: Any, restored: Any, make_incident: Any, make_receipt: Any
) -> None:
    before = {name: value.value for name, value in restored.core.known["a"].layers.items()}
    observe(drive)
    info = restored.core.known["a"]
    restored.core.known["a"] = replace(info, layers={**info.layers, "cpu": Enforcement.FULL})
    on = make_incident(receipts=(make_receipt("release.observe-only", captured={"layers": before}),))
    for step in (
        drive(agent_relaunch.ACTION, on=on, agent="a", reason="x"),
        drive(agent_relaunch.ACTION, agent="a", reason="x"),
    ):
        assert step.action.capture(step.context, step.params)["layers"] == before
