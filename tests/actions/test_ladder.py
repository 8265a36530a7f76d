"""The ladder's actions: what they claim is what a probe saw, whatever applying answered."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from clawback.actions import agent_freeze, agent_isolate, agent_release, agent_restrict, agent_seal, agent_stop
from clawback.errors import Refused, Unreachable
from clawback.model import AgentState, Enforcement, Level, LevelResult, Phase, ReceiptState

LADDER = [
    (agent_freeze.ACTION, Level.FREEZE),
    (agent_isolate.ACTION, Level.ISOLATE),
    (agent_restrict.ACTION, Level.RESTRICT),
    (agent_seal.ACTION, Level.SEAL),
]
UNDOABLE = LADDER[:3]


@pytest.mark.parametrize(("action", "level"), LADDER)
def test_a_level_that_was_seen_is_verified(drive: Any, there: Any, action: Any, level: Level) -> None:
    seen = drive(action, agent="a", instance="i1", reason="rogue").run()
    assert (seen.verified, seen.enforcement) == (True, Enforcement.FULL)
    assert level.word in seen.proof
    assert there.core.known["a"].hold.incident == "INC-1"


@pytest.mark.parametrize(("action", "level"), LADDER)
def test_a_core_that_lies_is_not_believed(drive: Any, there: Any, action: Any, level: Level) -> None:
    there.core.lies.add(level)
    seen = drive(action, agent="a", instance="i1", reason="rogue").run()
    assert (seen.verified, seen.enforcement) == (False, Enforcement.NONE)


@pytest.mark.parametrize(("action", "level"), LADDER)
def test_twice_is_once(drive: Any, there: Any, action: Any, level: Level) -> None:
    step = drive(action, agent="a", instance="i1", reason="rogue")
    step.run()
    before = dict(there.core.enforced["a"])
    assert step.run().verified
    assert there.core.enforced["a"] == before


@pytest.mark.parametrize(("action", "level"), LADDER)
def test_planning_touches_nothing(drive: Any, there: Any, action: Any, level: Level) -> None:
    step = drive(action, agent="a", instance="i1", reason="rogue")
    plan = action.plan(step.context, step.params)
    assert plan.changes
    assert there.core.enforced["a"] == {}
    assert there.core.known["a"].hold is None


@pytest.mark.parametrize(("action", "level"), UNDOABLE)
def test_revert_undoes_and_sees_it_undone(drive: Any, there: Any, action: Any, level: Level) -> None:
    step = drive(action, agent="a", instance="i1", reason="rogue")
    step.run()
    assert step.revert().verified
    assert there.core.known["a"].hold is None


@pytest.mark.parametrize(("action", "level"), UNDOABLE)
def test_revert_leaves_a_hold_that_was_there_before(drive: Any, there: Any, action: Any, level: Level) -> None:
    there.core.contain("a", level, reason="an analyst's", by="analyst")
    step = drive(action, agent="a", instance="i1", reason="rogue")
    step.run()
    undone = step.revert()
    assert undone.verified
    assert "before this incident" in undone.proof
    assert level in there.core.known["a"].hold.levels


@pytest.mark.parametrize(("action", "level"), UNDOABLE)
def test_a_release_that_did_nothing_is_not_a_revert(drive: Any, there: Any, action: Any, level: Level) -> None:
    step = drive(action, agent="a", instance="i1", reason="rogue")
    step.run()
    there.core.lies.add(level)
    assert not step.revert().verified


def test_another_instance_is_refused(drive: Any) -> None:
    with pytest.raises(Refused):
        drive(agent_freeze.ACTION, agent="a", instance="other", reason="rogue").run()


def test_a_new_instance_is_not_taken_for_the_one_that_was_frozen(drive: Any, there: Any) -> None:
    step = drive(agent_freeze.ACTION, agent="a", instance="i1", reason="rogue")
    step.run()
    there.core.known["a"] = replace(there.core.known["a"], instance="i2")
    seen = step.verify()
    assert not seen.verified
    assert "i2" in seen.proof


def relaunched(there: Any, make_receipt: Any, **changes: Any) -> Any:
    """`i1` was replaced by `i1r`; the receipt that says so."""
    there.core.relaunch("a", policy_version=2, policy_text="", reason="recover", by="tester")
    return make_receipt(
        "agent.relaunch",
        **{"phase": Phase.RECOVER, "captured": {"instance": "i1"}, "outcome": {"instance": "i1r"}, **changes},
    )


@pytest.mark.parametrize(("action", "level"), LADDER)
def test_an_instance_that_this_incident_replaced_is_seen_to_be_over(
    drive: Any, there: Any, make_incident: Any, make_receipt: Any, action: Any, level: Level
) -> None:
    on = make_incident(receipts=(relaunched(there, make_receipt),))
    step = drive(action, on=on, agent="a", instance="i1", reason="rogue")
    seen = step.run()
    assert seen.verified
    assert "i1 is over" in seen.proof
    assert there.core.known["a"].hold is None, "the one that runs is not meant"
    assert action.recheck(step.context, step.params, step.captured, step.outcome) is None
    if action.revert:
        there.core.contain("a", level, reason="another step's", by="responder", incident="INC-1")
        assert step.revert().verified
        assert level in there.core.known["a"].hold.levels


def test_an_instance_of_which_something_is_left_is_not_over(
    drive: Any, there: Any, make_incident: Any, make_receipt: Any
) -> None:
    on = make_incident(receipts=(relaunched(there, make_receipt),))
    there.core.earlier["i1"] = True
    with pytest.raises(Refused):
        drive(agent_freeze.ACTION, on=on, agent="a", instance="i1", reason="rogue").run()


@pytest.mark.parametrize(
    "changes",
    [
        {"state": ReceiptState.UNVERIFIED},
        {"phase": Phase.CONTAIN},
        {"params": {"agent": "b"}},
        {"outcome": {"instance": "i2"}},
        {"outcome": {}},
    ],
)
def test_whoever_else_took_its_place_is_no_proof(
    drive: Any, there: Any, make_incident: Any, make_receipt: Any, changes: dict[str, Any]
) -> None:
    on = make_incident(receipts=(relaunched(there, make_receipt, **changes),))
    with pytest.raises(Refused):
        drive(agent_freeze.ACTION, on=on, agent="a", instance="i1", reason="rogue").run()


@pytest.mark.parametrize(
    ("changes", "again", "given"),
    [
        ({}, 0, False),
        ({"state": ReceiptState.FAILED}, 0, False),
        ({"state": ReceiptState.REVERTED}, 0, True),
        ({"captured": {}}, 0, True),
        ({"captured": {"instance": "i0"}}, 0, True),
        ({"params": {"agent": "b"}}, 0, True),
        ({"params": {"agent": "a", "levels": ["freeze"]}}, 0, True),
        ({}, 3, True),
    ],
)
def test_who_is_being_let_go_is_not_held_anew_by_the_same_order(
    drive: Any, there: Any, make_incident: Any, make_receipt: Any, changes: dict[str, Any], again: int, given: bool
) -> None:
    values = {"phase": Phase.RECOVER, "captured": {"instance": "i1"}, **changes}
    on = make_incident(receipts=(make_receipt("agent.release", **values),))
    seen = drive(agent_freeze.ACTION, on=on, agent="a", instance="i1", reason="rogue", again=again).run()
    assert (seen.verified, there.core.known["a"].hold is not None) == (given, given)
    if not given:
        assert "not ordered again, for it was let go since" in seen.proof


@pytest.mark.parametrize("state", [ReceiptState.VERIFIED, ReceiptState.UNVERIFIED])
def test_an_order_is_void_once_the_step_that_it_doubts_is_verified(
    drive: Any, there: Any, make_incident: Any, make_receipt: Any, state: ReceiptState
) -> None:
    on = make_incident(receipts=(make_receipt("policy.validate", phase=Phase.RECOVER, state=state),))
    step = drive(agent_freeze.ACTION, on=on, agent="a", reason="not proved", again=1, unless="policy.validate")
    seen, void = step.run(), state is ReceiptState.VERIFIED
    assert seen.verified
    assert ("not called for any more" in seen.proof) is void
    assert (there.core.known["a"].hold is None) is void
    assert seen.enforcement is (Enforcement.NONE if void else Enforcement.FULL)


def test_an_order_for_whoever_runs_is_over_with_the_one_that_ran(
    drive: Any, there: Any, make_incident: Any, make_receipt: Any
) -> None:
    step = drive(agent_freeze.ACTION, agent="a", reason="not proved", again=1)
    there.core.lies.add(Level.FREEZE)
    assert not step.run().verified
    there.core.lies.clear()
    there.core.release("a", reason="mended", by="analyst")
    on = make_incident(receipts=(relaunched(there, make_receipt),))
    step.context = replace(step.context, incident=on)
    seen = step.run()
    assert seen.verified
    assert "i1 is over" in seen.proof
    assert there.core.known["a"].hold is None


def test_what_no_hold_orders_is_not_verified(drive: Any, there: Any) -> None:
    step = drive(agent_freeze.ACTION, agent="a", instance="i1", reason="rogue")
    step.run()
    there.core.known["a"] = replace(there.core.known["a"], hold=None)
    assert not step.verify().verified


@pytest.mark.parametrize(
    ("counts", "verified"),
    [
        ({"processes": 4, "frozen": 4}, True),
        ({"processes": 4, "frozen": 3}, False),
        ({"processes": 4}, False),
        ({"processes": 0, "frozen": 0}, False),
        ({}, False),
    ],
)
def test_a_partial_freeze_counts_only_if_every_process_was_counted(
    drive: Any, there: Any, counts: dict[str, int], verified: bool
) -> None:
    there.core.observed[Level.FREEZE] = LevelResult(
        level=Level.FREEZE,
        enforcement=Enforcement.PARTIAL,
        observed="4 of 4 processes stopped",
        missing=("cgroup freezer",),
        counts=counts,
    )
    seen = drive(agent_freeze.ACTION, agent="a", instance="i1", reason="rogue").run()
    assert (seen.verified, seen.enforcement) == (verified, Enforcement.PARTIAL)
    assert "cgroup freezer" in seen.proof


@pytest.mark.parametrize(
    ("counts", "verified"),
    [
        ({"uncut": 0, "leads_out": 1}, True),
        ({"uncut": 0, "leads_out": 0}, False),
        ({"uncut": 1, "leads_out": 1}, False),
        ({"leads_out": 1}, False),
        ({}, False),
    ],
)
def test_a_partial_isolation_counts_only_if_the_network_is_cut(
    drive: Any, there: Any, counts: dict[str, int], verified: bool
) -> None:
    there.core.observed[Level.ISOLATE] = LevelResult(
        level=Level.ISOLATE, enforcement=Enforcement.PARTIAL, observed="cut", missing=("a pipe",), counts=counts
    )
    seen = drive(agent_isolate.ACTION, agent="a", instance="i1", reason="rogue").run()
    assert seen.verified is verified
    assert "a pipe" in seen.proof


@pytest.mark.parametrize(("require", "verified"), [("full", False), ("partial", True)])
def test_the_caller_says_whether_a_partial_level_will_do(drive: Any, there: Any, require: str, verified: bool) -> None:
    there.core.observed[Level.RESTRICT] = LevelResult(
        level=Level.RESTRICT, enforcement=Enforcement.PARTIAL, observed="opens refused", missing=("limits",)
    )
    seen = drive(agent_restrict.ACTION, agent="a", reason="rogue", require=require).run()
    assert (seen.verified, seen.enforcement) == (verified, Enforcement.PARTIAL)
    assert "not enforced: limits" in seen.proof


def test_a_core_that_is_away_is_unreachable_not_failed(drive: Any, there: Any) -> None:
    there.core.down = True
    with pytest.raises(Unreachable):
        drive(agent_freeze.ACTION, agent="a", reason="rogue").run()


def test_stop_refuses_without_evidence_of_this_instance(
    drive: Any, there: Any, make_incident: Any, make_receipt: Any
) -> None:
    with pytest.raises(Refused):
        drive(agent_stop.ACTION, agent="a", instance="i1", reason="rogue").run()
    for unusable in (
        make_receipt("evidence.collect", state=ReceiptState.UNVERIFIED, outcome={"instance": "i1"}),
        make_receipt("evidence.collect", outcome={"instance": "i0"}),
        make_receipt("evidence.collect", params={"agent": "b"}, outcome={"instance": "i1"}),
    ):
        with pytest.raises(Refused):
            drive(agent_stop.ACTION, on=make_incident(receipts=(unusable,)), agent="a", instance="i1", reason="x").run()
    assert Level.STOP not in there.core.enforced["a"]


def test_stop_goes_on_evidence_or_on_a_stated_reason(drive: Any, make_incident: Any, make_receipt: Any) -> None:
    held = make_incident(receipts=(make_receipt("evidence.collect", outcome={"instance": "i1", "sha256": "ab"}),))
    assert drive(agent_stop.ACTION, on=held, agent="a", instance="i1", reason="rogue").run().verified
    seen = drive(agent_stop.ACTION, agent="a", reason="rogue", without_evidence="it is wiping the disk").run()
    assert seen.verified
    assert "it is wiping the disk" in seen.proof


def test_release_says_what_stays(drive: Any, there: Any) -> None:
    for level in (Level.FREEZE, Level.ISOLATE, Level.SEAL):
        there.core.contain("a", level, reason="x", by="y")
    seen = drive(agent_release.ACTION, agent="a", reason="done").run()
    assert (seen.verified, seen.enforcement) == (True, Enforcement.PARTIAL)
    assert "stays enforced until a relaunch: seal" in seen.proof


def test_release_is_not_claimed_while_the_agent_is_still_frozen(drive: Any, there: Any) -> None:
    there.core.contain("a", Level.FREEZE, reason="x", by="y")
    there.core.lies.add(Level.FREEZE)
    seen = drive(agent_release.ACTION, agent="a", reason="done").run()
    assert not seen.verified


def test_release_of_some_levels_keeps_the_others(drive: Any, there: Any) -> None:
    for level in (Level.FREEZE, Level.ISOLATE):
        there.core.contain("a", level, reason="x", by="y")
    assert drive(agent_release.ACTION, agent="a", reason="watch it", levels=["freeze"]).run().verified
    assert there.core.known["a"].hold.levels == (Level.ISOLATE,)


def test_a_release_is_reverted_by_containing_again(drive: Any, there: Any) -> None:
    for level in (Level.ISOLATE, Level.FREEZE):
        there.core.contain("a", level, reason="x", by="y")
    step = drive(agent_release.ACTION, agent="a", reason="done")
    step.run()
    there.core.calls.clear()
    assert step.revert().verified
    assert [call for call in there.core.calls if call.startswith("contain")] == ["contain freeze", "contain isolate"]


def test_release_refuses_a_level_that_is_none() -> None:
    with pytest.raises(ValueError, match="no such level"):
        agent_release.ACTION.params(agent="a", reason="x", levels=["everything"])


def test_release_of_a_killed_tree_is_seen_before_the_core_hears_of_its_end(drive: Any, there: Any) -> None:
    for level in (Level.FREEZE, Level.STOP):
        there.core.contain("a", level, reason="x", by="y")
    there.core.known["a"] = replace(there.core.known["a"], state=AgentState.RUNNING, exit_status=None)
    there.core.lies.add(Level.FREEZE)  # as a probe of the dead: still "full"
    seen = drive(agent_release.ACTION, agent="a", reason="done").run()
    assert (seen.verified, seen.enforcement) == (True, Enforcement.PARTIAL)
    assert "processes are gone" in seen.proof
