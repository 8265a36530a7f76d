"""A step that waits for a person is made once, with what was shown, and only after a yes."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

import pytest

from clawback.action import Action
from clawback.config import ApprovalRule, ApprovalSettings
from clawback.errors import InvalidInput, Refused
from clawback.journal import Journal
from clawback.journal.approvals import Need
from clawback.model import Approval, ApprovalState, Incident, Phase, ReceiptState
from clawback.response import Response
from clawback.response.consent import needed
from clawback.world import World


@pytest.fixture
def asking(action: Action, journal: Journal, incident: Incident) -> Callable[..., Response]:
    """Makes a response under these rules."""
    world = World(core=None, policies=None, secrets=None, tickets=None)

    def make(*rules: ApprovalRule, minutes: float = 15) -> Response:
        return Response(
            journal, world, "test", incident.id, actions={action.id: action},
            approvals=ApprovalSettings(minutes=minutes, rules=rules),
        )  # fmt: skip

    return make


@pytest.fixture
def effects(outside) -> Callable[[], int]:
    return lambda: outside.done["effect"]


@pytest.fixture
def step(action: Action) -> Action:
    return replace(action, phase=Phase.ERADICATE, consent=True)


def one(journal: Journal, *states: ApprovalState) -> Approval:
    (found,) = journal.approvals(*states)
    return found


def answer(journal: Journal, who: str = "ann", *, grant: bool = True) -> Approval:
    asked = one(journal, ApprovalState.PENDING)
    return journal.answer(asked.id, nonce=asked.nonce, who=who, grant=grant, reason="because")


def test_waits_and_does_nothing_then_is_made_once(asking, step, params, effects, journal) -> None:
    response = asking()
    for _ in range(2):
        receipt = response.execute(step, params)
        assert receipt.state is ReceiptState.AWAITING
    assert effects() == 0
    asked = one(journal)
    assert asked.shown
    assert receipt.error == f"awaits {asked.id}"
    assert journal.decided() == ()
    answer(journal)
    assert journal.decided() == ((asked.id, asked.incident),)
    assert response.execute(step, params).state is ReceiptState.VERIFIED
    assert one(journal).state is ApprovalState.USED
    assert response.execute(step, params).state is ReceiptState.VERIFIED
    assert effects() == 1


def test_denied_stops_it_and_what_depends_on_it(asking, step, params, effects, journal) -> None:
    response = asking()
    waiting = response.execute(step, params)
    other = replace(step, id="test.other", consent=False)
    assert "is awaiting" in response.execute(other, params, after=(waiting,)).error
    answer(journal, grant=False)
    denied = response.execute(step, params)
    assert denied.state is ReceiptState.FAILED
    assert "denied by ann: because" in denied.error
    assert response.execute(step, params).attempts == denied.attempts
    assert response.execute(other, params, after=(denied,)).state is ReceiptState.FAILED
    assert effects() == 0


def test_a_denied_one_can_be_renewed_once_and_granted(asking, step, params, journal) -> None:
    response = asking()
    response.execute(step, params)
    denied = answer(journal, grant=False)
    response.execute(step, params)
    renewed = journal.renew(denied.id, "bob")
    assert renewed.nonce != denied.nonce
    with pytest.raises(Refused, match="was renewed by"):
        journal.renew(denied.id, "bob")
    with pytest.raises(Refused, match="no answer to"):
        journal.answer(renewed.id, nonce=denied.nonce, who="ann", grant=True)
    journal.answer(renewed.id, nonce=renewed.nonce, who="ann", grant=True)
    assert response.execute(step, params).state is ReceiptState.VERIFIED


def test_silence_is_a_denial(asking, step, params, effects, journal) -> None:
    response = asking(minutes=1 / 60)
    response.execute(step, params)
    asked = one(journal)
    while time.time_ns() < asked.expires_ns:
        time.sleep(0.005)
    assert one(journal).state is ApprovalState.EXPIRED
    assert journal.decided() == ((asked.id, asked.incident),)
    with pytest.raises(Refused, match="is expired"):
        journal.answer(asked.id, nonce=asked.nonce, who="ann", grant=True)
    assert "expired" in response.execute(step, params).error
    assert journal.decided() == ()
    assert effects() == 0


def test_a_grant_is_for_these_parameters_and_this_incident(asking, step, params, effects, journal) -> None:
    response = asking()
    response.execute(step, params)
    answer(journal)
    same_key = replace(step, key=lambda _: step.key(params))
    changed = params.model_copy(update={"name": "another"})
    assert response.execute(same_key, changed).state is ReceiptState.AWAITING
    assert effects() == 0


def test_quorum_counts_people_not_answers(asking, step, params, journal) -> None:
    response = asking(ApprovalRule(quorum=2))
    response.execute(step, params)
    assert answer(journal).state is ApprovalState.PENDING
    with pytest.raises(Refused, match="answered"):
        answer(journal)
    assert response.execute(step, params).state is ReceiptState.AWAITING
    assert answer(journal, "bob").state is ApprovalState.GRANTED
    assert response.execute(step, params).state is ReceiptState.VERIFIED


def test_who_asked_or_contained_may_deny_but_not_grant(asking, step, params, journal, incident) -> None:
    journal.intend(incident, "f", "agent.freeze", Phase.CONTAIN, {}, "carl")
    asking().execute(step, params)
    for who in ("test", "carl"):
        with pytest.raises(Refused, match="asked for it, or contained"):
            answer(journal, who)
    assert answer(journal, "carl", grant=False).state is ApprovalState.DENIED


def test_only_the_named_may_answer(asking, step, params, journal) -> None:
    asking(ApprovalRule(approvers=("ann",))).execute(step, params)
    with pytest.raises(Refused, match="may not answer"):
        answer(journal, "bob")
    answer(journal)


def test_a_grant_is_spent_once(asking, step, params, journal) -> None:
    asking().execute(step, params)
    granted = answer(journal)
    journal.use(granted.id, "test")
    with pytest.raises(Refused, match="is used"):
        journal.use(granted.id, "test")


def test_containment_never_waits(step, incident) -> None:
    strict = ApprovalSettings(rules=(ApprovalRule(quorum=2),))
    assert needed(strict, replace(step, phase=Phase.CONTAIN), Phase.ERADICATE, incident) is None
    assert needed(strict, step, Phase.CONTAIN, incident) is None
    assert needed(strict, step, Phase.ERADICATE, incident) == Need(quorum=2, seconds=900)


def test_the_first_rule_that_matches_decides(step, incident) -> None:
    rules = ApprovalSettings(
        rules=(
            ApprovalRule(actions=("nothing.*",), quorum=3),
            ApprovalRule(actions=("*",), phases=(Phase.RECOVER,), quorum=2),
            ApprovalRule(actions=(step.id,), quorum=0),
        )
    )
    assert needed(rules, step, Phase.RECOVER, incident) == Need(quorum=2, seconds=900)
    assert needed(rules, step, Phase.ERADICATE, incident) is None
    assert needed(ApprovalSettings(), step, Phase.ERADICATE, incident) == Need(seconds=900)
    assert needed(ApprovalSettings(), replace(step, consent=False), Phase.ERADICATE, incident) is None


def test_a_quorum_that_cannot_be_reached_is_refused() -> None:
    with pytest.raises(ValueError, match="can never be reached"):
        ApprovalRule(quorum=2, approvers=("ann", "ann"))


def test_the_whole_of_it_is_in_the_audit_record(asking, step, params, journal) -> None:
    response = asking()
    response.execute(step, params)
    answer(journal)
    response.execute(step, params)
    said = [(entry.kind, entry.what, entry.actor) for entry in journal.audit_entries()]
    for what in ("asked", "granted", "used"):
        assert ("approval", f"{step.id} {what}", "ann" if what == "granted" else "test") in said
    assert ("vote", f"{step.id} granted", "ann") in said
    assert journal.audit_verify()[1] == []


def test_an_unnamed_approver_is_refused(asking, step, params, journal) -> None:
    asking().execute(step, params)
    with pytest.raises(InvalidInput):
        answer(journal, "")
