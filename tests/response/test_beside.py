"""Steps beside the playbook: they may hang and hold up nothing, and none outlives the run that began it."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from clawback.model import IncidentStatus, ReceiptState
from clawback.playbook import Step, playbook
from clawback.response import Responder, run_playbook

V, I = ReceiptState.VERIFIED, ReceiptState.INTENDED  # noqa: E741 - states, in short


def book(body: Any) -> Any:
    return playbook(id="book", title="Book", answers={"d"}, runbook="book")(body)


@pytest.fixture
def hanging(make: Any, action: Any) -> Any:
    """An action that hangs until its event is set, and that event."""
    over = threading.Event()

    def apply(context: Any, params: Any, captured: Any) -> Any:
        assert over.wait(10), "what was to be done meanwhile was not done"
        return action.apply(context, params, captured)

    return make(id="switch.hang", apply=apply), over


def test_what_follows_does_not_wait_and_the_end_does(response: Any, action: Any, hanging: Any) -> None:
    slow, over = hanging

    def body(_incident: Any, respond: Any) -> None:
        respond.beside(Step(slow, slow.params(name="a")))
        assert respond(action, action.params(name="b")).state is V
        assert [x.state for x in respond.together(Step(action, action.params(name="c")))] == [V]
        over.set()

    ended = run_playbook(book(body), Responder(response)).incident
    assert ended.status is IncidentStatus.CLOSED
    assert [x.key for x in ended.receipts] == ["switch.hang:a", "switch.on:b", "switch.on:c"], "as they were begun"
    first, *others = ended.receipts
    assert all(x.verified_ns < first.applied_ns for x in others)


@pytest.mark.parametrize("again", ["alone", "together", "beside"])
def test_asked_for_again_it_is_waited_for_and_made_once(response: Any, hanging: Any, outside: Any, again: str) -> None:
    slow, over = hanging
    responder, step = Responder(response), Step(slow, slow.params(name="a"))
    responder.beside(step)
    threading.Timer(0.05, over.set).start()
    if again == "alone":
        assert responder(step.action, step.params).state is V
    elif again == "together":
        assert [x.state for x in responder.together(step)] == [V]
    else:
        responder.beside(step)
    responder.join()
    assert outside.done["apply"] == 1
    assert [x.attempts for x in response.journal.incident(response.incident_id).receipts] == [1]


def test_a_playbook_that_breaks_leaves_nothing_running(response: Any, hanging: Any) -> None:
    slow, over = hanging

    def body(_incident: Any, respond: Any) -> None:
        respond.beside(Step(slow, slow.params(name="a")))
        threading.Timer(0.05, over.set).start()
        raise KeyError

    run = run_playbook(book(body), Responder(response))
    assert "KeyError" in run.error
    assert [x.state for x in run.incident.receipts] == [V]


def test_killed_in_it_the_next_life_makes_it(response: Any, action: Any, outside: Any, errors: Any) -> None:
    def body(_incident: Any, respond: Any) -> None:
        respond.beside(Step(action, action.params(name="a")))
        respond.join()

    outside.after["apply"] = errors["killed"]()
    with pytest.raises(errors["killed"]):
        run_playbook(book(body), Responder(response))
    assert [x.state for x in response.journal.incident(response.incident_id).receipts] == [I]
    assert run_playbook(book(body), Responder(response)).incident.status is IncidentStatus.CLOSED
    assert outside.done["effect"] == 1


def test_one_that_fails_keeps_the_incident_open_and_stops_nothing(
    response: Any, action: Any, errors: Any, outside: Any
) -> None:
    def body(_incident: Any, respond: Any) -> None:
        respond.beside(Step(action, action.params(name="a")))
        respond.join()
        respond(action, action.params(name="b"))

    outside.trouble["apply"] = errors["away"]("no answer")
    ended = run_playbook(book(body), Responder(response)).incident
    assert [x.state for x in ended.receipts] == [I, V]
    assert ended.status is IncidentStatus.OPEN


def test_without_the_agents_lock_nothing_is_begun(response: Any, action: Any, outside: Any) -> None:
    def body(_incident: Any, respond: Any) -> None:
        respond.beside(Step(action, action.params(name="a")))

    assert "lock was lost" in run_playbook(book(body), Responder(response, held=lambda: False)).error
    assert not outside.on
