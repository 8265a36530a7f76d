"""Steps side by side: at the same time in the world, in the order given in the journal, each answering for itself."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from clawback.errors import InvalidInput, Refused, Unreachable
from clawback.model import IncidentStatus, Phase, ReceiptState
from clawback.playbook import Step, playbook
from clawback.response import Responder, run_playbook
from clawback.response.respond import SIDE_BY_SIDE

V, F, I = ReceiptState.VERIFIED, ReceiptState.FAILED, ReceiptState.INTENDED  # noqa: E741 - states, in short


def book(body: Any) -> Any:
    return playbook(id="book", title="Book", answers={"d"}, runbook="book")(body)


def steps(action: Any, *names: str) -> tuple[Step, ...]:
    return tuple(Step(action, action.params(name=name)) for name in names)


@pytest.fixture
def meeting(make: Any, action: Any) -> Any:
    """An action of which all of these names must be in `apply` before one leaves it, the last name first."""

    def declare(names: list[str]) -> Any:
        met, turn, done = threading.Barrier(len(names)), threading.Condition(), set()

        def apply(context: Any, params: Any, captured: Any) -> Any:
            met.wait(10)
            with turn:
                assert turn.wait_for(lambda: done >= {name for name in names if name > params.name}, 10)
            return action.apply(context, params, captured)

        def verify(context: Any, params: Any, captured: Any, outcome: Any) -> Any:
            with turn:  # by now the journal has it as applied
                done.add(params.name)
                turn.notify_all()
            return action.verify(context, params, captured, outcome)

        return make(id="switch.meet", apply=apply, verify=verify)

    return declare


def test_they_are_made_at_once_and_stand_in_the_order_given(response: Any, meeting: Any) -> None:
    names = [f"n{at}" for at in range(SIDE_BY_SIDE)]
    action = meeting(names)
    responder = Responder(response)
    with responder.phase(Phase.ERADICATE):
        receipts = responder.together(*steps(action, *names))
    assert [receipt.key for receipt in receipts] == [f"switch.meet:{name}" for name in names]
    assert {receipt.state for receipt in receipts} == {V}
    assert {receipt.phase for receipt in receipts} == {Phase.ERADICATE}
    held = response.journal.incident(response.incident_id).receipts
    assert [receipt.id for receipt in held] == [receipt.id for receipt in receipts]
    assert [receipt.attempts for receipt in held] == [1] * len(names)
    # The last one given was through first: the order is the journal's doing, not the world's.
    assert [receipt.key for receipt in sorted(held, key=lambda one: one.applied_ns)] == [
        receipt.key for receipt in reversed(held)
    ]


def test_they_are_given_their_places_by_one_record(response: Any, action: Any) -> None:
    Responder(response).together(*steps(action, "a", "b", "c"))
    times = [one.at_ns for one in response.journal.audit_entries() if one.what == "switch.on intended"]
    assert len(times) == 6, "each once more, with what it captured"
    assert len(set(times[:3])) == 1


def test_one_that_cannot_be_recorded_leaves_none_begun(response: Any, action: Any, outside: Any) -> None:
    long = Step(action, action.params(name="b", note="x" * (2 << 20)))
    with pytest.raises(InvalidInput, match=r"switch\.on: params cannot be journalled"):
        Responder(response).together(*steps(action, "a"), long)
    assert response.journal.incident(response.incident_id).receipts == ()
    assert not outside.done


def test_more_than_there_are_threads(response: Any, action: Any) -> None:
    names = [f"n{at:02}" for at in range(3 * SIDE_BY_SIDE)]
    receipts = Responder(response).together(*steps(action, *names))
    assert [receipt.key for receipt in receipts] == [f"switch.on:{name}" for name in names]
    assert {receipt.state for receipt in receipts} == {V}


@pytest.mark.parametrize(("trouble", "state"), [("refused", F), ("away", I), ("defect", F)])
def test_one_that_fails_stops_no_other(
    response: Any, action: Any, make: Any, errors: Any, trouble: str, state: ReceiptState
) -> None:
    def apply(context: Any, params: Any, captured: Any) -> Any:
        raise (errors.get(trouble) or KeyError)("no")

    failing = make(id="switch.fail", apply=apply)
    first, second, third = Responder(response).together(
        Step(action, action.params(name="a")),
        Step(failing, action.params(name="b")),
        Step(action, action.params(name="c")),
    )
    assert (first.state, second.state, third.state) == (V, state, V)


def test_each_depends_on_what_it_says_and_on_nothing_else(response: Any, action: Any) -> None:
    responder = Responder(response)
    bad = response.execute(action, action.params(name="bad"))
    bad = response.journal.unverified(bad.id, "gone", bad.enforcement)
    free, bound = responder.together(
        Step(action, action.params(name="free")), Step(action, action.params(name="bound"), after=(bad,))
    )
    assert (free.state, bound.state) == (V, F)
    assert "switch.on is unverified" in bound.error


def test_killed_in_one_the_others_end_and_the_next_life_makes_what_is_left(
    response: Any, action: Any, outside: Any, errors: Any
) -> None:
    def body(_incident: Any, respond: Any) -> None:
        respond.together(*steps(action, "a", "b", "c"))

    outside.after["apply"] = errors["killed"]()
    with pytest.raises(errors["killed"]):
        run_playbook(book(body), Responder(response))
    states = [receipt.state for receipt in response.journal.incident(response.incident_id).receipts]
    assert sorted(states) == sorted([V, V, I])
    run = run_playbook(book(body), Responder(response))
    assert run.incident.status is IncidentStatus.CLOSED
    assert [receipt.key for receipt in run.incident.receipts] == ["switch.on:a", "switch.on:b", "switch.on:c"]
    assert outside.done["effect"] == 3


def test_what_is_known_is_adopted_whatever_is_new_beside_it(response: Any, action: Any, outside: Any) -> None:
    before = response.execute(action, action.params(name="b"))
    receipts = Responder(response).together(*steps(action, "a", "b", "c"))
    assert receipts[1] == before
    assert outside.done["effect"] == 3
    assert Responder(response).together(*steps(action, "a", "b", "c")) == receipts
    assert outside.done["apply"] == 3


def test_asked_for_twice_it_is_made_once(response: Any, action: Any, outside: Any) -> None:
    one, other = Responder(response).together(*steps(action, "a", "a"))
    assert one == other
    assert outside.done["apply"] == 1


def test_what_a_capture_meets_is_its_own_steps(response: Any, action: Any, outside: Any) -> None:
    outside.trouble["capture"] = Unreachable("away")
    receipts = Responder(response).together(*steps(action, "a", "b"))
    assert sorted(receipt.state for receipt in receipts) == sorted([I, V])
    cut = next(receipt for receipt in receipts if receipt.state is I)
    assert not cut.captured_ns
    assert response.revert(cut).state is ReceiptState.ALREADY_ABSENT


def test_none_is_none(response: Any) -> None:
    assert Responder(response).together() == ()


def test_one_that_waits_for_a_person_holds_up_no_other(response: Any, action: Any, make: Any) -> None:
    from clawback.config import ApprovalSettings

    response._approvals = ApprovalSettings()
    asking = make(id="switch.ask", phase=Phase.ERADICATE, consent=True)
    free, waiting = Responder(response).together(
        Step(action, action.params(name="a")), Step(asking, asking.params(name="b"))
    )
    assert (free.state, waiting.state) == (V, ReceiptState.AWAITING)
    (asked,) = response.journal.approvals(incident=response.incident_id)
    response.journal.answer(asked.id, nonce=asked.nonce, who="alice", grant=True)
    assert [one.state for one in Responder(response).together(*steps(asking, "b"))] == [V]
    with pytest.raises(Refused):
        response.journal.use(asked.id, "test")


def test_without_the_agents_lock_nothing_further_is_begun(response: Any, action: Any, outside: Any) -> None:
    ours = [True]

    def body(_incident: Any, respond: Any) -> None:
        respond(action, action.params(name="a"))
        ours.clear()
        respond.together(*steps(action, "b", "c"))

    run = run_playbook(book(body), Responder(response, held=lambda: bool(ours)))
    assert "lock was lost" in run.error
    assert run.incident.status is IncidentStatus.OPEN
    assert outside.on == {"a"}
