"""One action through the journal: intent before effect, proof before claim, and going on after every interruption."""

from __future__ import annotations

from typing import Any

import pytest

from clawback.action import Reversibility
from clawback.errors import NotFound, Refused, Unreachable
from clawback.model import Enforcement, Phase, ReceiptState


def test_done_and_adopted(response: Any, action: Any, params: Any, outside: Any) -> None:
    receipt = response.execute(action, params, phase=Phase.CONTAIN)
    assert receipt.state is ReceiptState.VERIFIED
    assert receipt.enforcement is Enforcement.FULL
    assert receipt.proof == "looked"
    assert receipt.key == "switch.on:lamp"
    assert 0 < receipt.intended_ns <= receipt.applied_ns <= receipt.verified_ns
    reworded = action.params(name="lamp", note="another reason")
    assert response.execute(action, reworded, phase=Phase.CONTAIN) == receipt
    assert outside.done == {"capture": 1, "apply": 1, "effect": 1, "verify": 1}


def test_plan_touches_nothing(response: Any, action: Any, params: Any, outside: Any) -> None:
    before = response.journal.incident(response.incident_id)
    assert response.plan(action, params).changes == ("+ lamp",)
    assert response.journal.incident(response.incident_id) == before
    assert not outside.done


def test_the_intent_is_written_before_the_effect(response: Any, make: Any, params: Any) -> None:
    seen = []

    def apply(_context: Any, _params: Any, _captured: Any) -> dict[str, Any]:
        seen.extend(response.journal.incident(response.incident_id).receipts)
        return {}

    response.execute(make(apply=apply), params)
    assert [(receipt.state, receipt.captured) for receipt in seen] == [(ReceiptState.INTENDED, {"was": False})]


@pytest.mark.parametrize(
    ("where", "state"),
    [
        ("capture", ReceiptState.INTENDED),
        ("apply", ReceiptState.INTENDED),
        ("verify", ReceiptState.APPLIED),
    ],
)
def test_a_part_that_is_away_leaves_the_step_pending(
    response: Any, action: Any, params: Any, outside: Any, where: str, state: ReceiptState
) -> None:
    outside.trouble[where] = Unreachable("vault does not answer")
    receipt = response.execute(action, params)
    assert receipt.state is state
    assert "vault does not answer" in receipt.error
    again = response.execute(action, params)
    assert (again.state, again.error) == (ReceiptState.VERIFIED, "")
    assert outside.done["effect"] == 1


@pytest.mark.parametrize(
    ("where", "state"),
    [("capture", ReceiptState.FAILED), ("apply", ReceiptState.FAILED), ("verify", ReceiptState.UNVERIFIED)],
)
def test_a_refusal_fails_the_step(
    response: Any, action: Any, params: Any, outside: Any, where: str, state: ReceiptState
) -> None:
    outside.trouble[where] = Refused("not permitted")
    receipt = response.execute(action, params)
    assert receipt.state is state
    assert "not permitted" in receipt.error + receipt.proof
    assert response.execute(action, params).state is ReceiptState.VERIFIED


@pytest.mark.parametrize("where", ["capture", "apply", "verify"])
def test_a_defect_tells_its_type_and_never_its_message(
    response: Any, action: Any, params: Any, outside: Any, where: str, capsys: Any
) -> None:
    outside.trouble[where] = RuntimeError("the key is 12345")
    receipt = response.execute(action, params)
    assert receipt.state in {ReceiptState.FAILED, ReceiptState.UNVERIFIED}
    assert "RuntimeError" in receipt.error + receipt.proof
    said = capsys.readouterr()
    assert "12345" not in receipt.error + receipt.proof + said.out + said.err
    assert "RuntimeError" in said.out + said.err


def test_what_was_not_seen_is_not_verified(response: Any, action: Any, params: Any, outside: Any) -> None:
    outside.blind = True
    receipt = response.execute(action, params)
    assert (receipt.state, receipt.enforcement) == (ReceiptState.UNVERIFIED, Enforcement.NONE)


def test_a_claim_without_a_proof_is_none(response: Any, action: Any, params: Any, outside: Any) -> None:
    outside.mute = True
    assert response.execute(action, params).state is ReceiptState.UNVERIFIED


def test_killed_after_the_effect_keeps_what_was_captured_before_it(
    response: Any, action: Any, params: Any, outside: Any, errors: Any
) -> None:
    outside.after["apply"] = errors["killed"]()
    with pytest.raises(errors["killed"]):
        response.execute(action, params)
    receipt = response.execute(action, params)
    assert receipt.state is ReceiptState.VERIFIED
    assert receipt.captured == {"was": False}
    assert outside.done == {"capture": 1, "apply": 2, "effect": 1, "verify": 1}


def test_killed_before_verify_only_verifies(response: Any, action: Any, params: Any, outside: Any, errors: Any) -> None:
    outside.trouble["verify"] = errors["killed"]()
    with pytest.raises(errors["killed"]):
        response.execute(action, params, phase=Phase.ERADICATE)
    assert response.execute(action, params, phase=Phase.ERADICATE).state is ReceiptState.VERIFIED
    assert outside.done["apply"] == 1


def test_a_containment_killed_before_verify_is_made_again_and_converges(
    response: Any, action: Any, params: Any, outside: Any, errors: Any
) -> None:
    outside.trouble["verify"] = errors["killed"]()
    with pytest.raises(errors["killed"]):
        response.execute(action, params, phase=Phase.CONTAIN)
    receipt = response.execute(action, params, phase=Phase.CONTAIN)
    assert (receipt.state, receipt.captured) == (ReceiptState.VERIFIED, {"was": False})
    assert outside.done == {"capture": 1, "apply": 2, "effect": 1, "verify": 2}


def test_a_containment_that_is_not_seen_is_applied_and_unverified(
    response: Any, action: Any, params: Any, outside: Any
) -> None:
    outside.trouble["verify"] = Unreachable("away")
    receipt = response.execute(action, params, phase=Phase.CONTAIN)
    assert receipt.state is ReceiptState.APPLIED
    assert receipt.applied_ns
    assert receipt.error
    assert response.execute(action, params, phase=Phase.CONTAIN).state is ReceiptState.VERIFIED
    assert outside.done["apply"] == 1


@pytest.mark.parametrize(
    ("phase", "declared", "reversibility", "records"),
    [
        (Phase.CONTAIN, Phase.CONTAIN, Reversibility.REVERSIBLE, ["intended", "verified"]),
        (Phase.CONTAIN, Phase.CONTAIN, Reversibility.IRREVERSIBLE, ["intended", "verified"]),
        (Phase.IDENTIFY, Phase.IDENTIFY, Reversibility.REVERSIBLE, ["intended", "verified"]),
        (Phase.CONTAIN, Phase.IDENTIFY, Reversibility.IRREVERSIBLE, ["intended", "applied", "verified"]),
        (Phase.ERADICATE, Phase.CONTAIN, Reversibility.REVERSIBLE, ["intended", "applied", "verified"]),
    ],
    ids=["held", "sealed", "looked", "told", "later"],
)
def test_what_is_in_a_hurry_and_may_be_done_again_is_one_record_less(
    response: Any,
    make: Any,
    params: Any,
    phase: Phase,
    declared: Phase,
    reversibility: Reversibility,
    records: list[str],
) -> None:
    undone = {} if reversibility is Reversibility.REVERSIBLE else {"revert": None, "verify_reverted": None}
    action = make(id="x.do", phase=declared, reversibility=reversibility, **undone)
    assert response.execute(action, params, phase=phase).state is ReceiptState.VERIFIED
    assert [one.what for one in response.journal.audit_entries() if one.kind == "receipt"] == [
        f"x.do {state}" for state in records
    ]


def test_applied_and_since_undone_by_another_hand_is_applied_again(
    response: Any, action: Any, params: Any, outside: Any
) -> None:
    outside.trouble["verify"] = Unreachable("away")
    response.execute(action, params)
    outside.on.clear()
    assert response.execute(action, params).state is ReceiptState.VERIFIED
    assert outside.done["effect"] == 2


def test_what_depends_on_a_failed_step_is_not_started(response: Any, action: Any, params: Any, outside: Any) -> None:
    outside.trouble["apply"] = Refused("no")
    first = response.execute(action, params)
    second = response.execute(action, action.params(name="fan"), after=(first,))
    assert second.state is ReceiptState.FAILED
    assert "switch.on is failed" in second.error
    assert outside.done["apply"] == 1
    first = response.execute(action, params)
    assert response.execute(action, action.params(name="fan"), after=(first,)).state is ReceiptState.VERIFIED


def test_an_interrupted_step_whose_condition_fell_away_is_not_called_failed(
    response: Any, action: Any, params: Any, outside: Any
) -> None:
    outside.trouble["verify"] = Unreachable("away")
    response.execute(action, params)
    outside.trouble["apply"] = Refused("no")
    other = response.execute(action, action.params(name="fan"))
    receipt = response.execute(action, params, after=(other,))
    assert receipt.state is ReceiptState.APPLIED
    assert "not started" in receipt.error


ROTATION = {"id": "vault.rotate", "phase": Phase.ERADICATE, "needs": frozenset({"vault:auth/token/create"})}


def test_no_rotation_before_evidence(response: Any, make: Any, params: Any, outside: Any) -> None:
    rotate = make(**ROTATION, reversibility=Reversibility.COMPENSABLE)
    receipt = response.execute(rotate, params)
    assert receipt.state is ReceiptState.FAILED
    assert "evidence" in receipt.error
    assert not outside.done["apply"]
    response.execute(make(id="evidence.collect"), params)
    assert response.execute(rotate, params).state is ReceiptState.VERIFIED


def test_evidence_may_be_waived_by_name(response: Any, make: Any, params: Any) -> None:
    stop = make(id="agent.stop", needs=frozenset({"core:stop"}))
    assert response.execute(stop, params).state is ReceiptState.FAILED
    response._without_evidence = "host is on fire"
    assert response.execute(stop, params).state is ReceiptState.VERIFIED
    lines = response.journal.incident(response.incident_id).timeline
    assert any(line.what == "agent.stop without evidence" and "on fire" in line.detail for line in lines)


# -- revert ------------------------------------------------------------------------------------------------------------


def test_reverts_from_the_captured_record_alone(response: Any, action: Any, params: Any, outside: Any) -> None:
    receipt = response.revert(response.execute(action, params))
    assert receipt.state is ReceiptState.REVERTED
    assert receipt.reverted_ns
    assert not outside.on
    assert response.revert(receipt) == receipt
    assert outside.done["revert"] == 1


def test_what_was_undone_by_hand_is_not_done_again(response: Any, action: Any, params: Any, outside: Any) -> None:
    receipt = response.revert(response.execute(action, params))
    assert response.execute(action, params) == receipt
    assert outside.done["apply"] == 1


def test_killed_within_revert(response: Any, action: Any, params: Any, outside: Any, errors: Any) -> None:
    receipt = response.execute(action, params)
    outside.after["revert"] = errors["killed"]()
    with pytest.raises(errors["killed"]):
        response.revert(receipt)
    assert response.revert(receipt).state is ReceiptState.ALREADY_ABSENT
    assert outside.done["revert"] == 1


@pytest.mark.parametrize(
    ("where", "problem", "state"),
    [
        ("revert", Unreachable("away"), ReceiptState.REVERT_PENDING),
        ("revert", Refused("no"), ReceiptState.REVERT_FAILED),
        ("revert", NotFound("no such agent"), ReceiptState.ORPHANED),
        ("revert", RuntimeError("x"), ReceiptState.REVERT_FAILED),
    ],
)
def test_a_revert_that_falls_short_and_then_works(
    response: Any, action: Any, params: Any, outside: Any, where: str, problem: Exception, state: ReceiptState
) -> None:
    receipt = response.execute(action, params)
    outside.trouble[where] = problem
    assert response.revert(receipt).state is state
    assert response.revert(receipt).state is ReceiptState.REVERTED


def test_a_revert_that_is_not_seen_is_none(response: Any, action: Any, params: Any, outside: Any) -> None:
    receipt = response.execute(action, params)
    outside.blind = True
    assert response.revert(receipt).state is ReceiptState.REVERT_FAILED


def test_nothing_was_started_so_nothing_is_undone(response: Any, action: Any, params: Any, outside: Any) -> None:
    outside.trouble["capture"] = Refused("no")
    receipt = response.execute(action, params)
    assert response.revert(receipt).state is ReceiptState.ALREADY_ABSENT
    assert not outside.done["revert"]


def test_the_irreversible_is_refused(response: Any, make: Any, params: Any) -> None:
    kill = make(id="x.kill", reversibility=Reversibility.IRREVERSIBLE, revert=None, verify_reverted=None)
    response._actions = {kill.id: kill}
    receipt = response.execute(kill, params)
    with pytest.raises(Refused):
        response.revert(receipt)
    assert response.journal.incident(response.incident_id).receipts[0].state is ReceiptState.VERIFIED
