"""A step that a person lets stand: settled, never tried again, no ground for what depends on it, and to be undone."""

from __future__ import annotations

from typing import Any

import pytest

from clawback.errors import InvalidInput, NotFound, Refused
from clawback.model import IncidentStatus, ReceiptState
from clawback.playbook import playbook
from clawback.response import Responder, accept, run_playbook, undo, unsettled_step


def book(body: Any) -> Any:
    return playbook(id="book", title="Book", answers={"d"}, runbook="book")(body)


def let_stand(response: Any, name: str) -> Any:
    receipt = unsettled_step(response.journal.incident(response.incident_id), name)
    return accept(response.journal, receipt, who="somebody", reason="no such switch any more")


def test_incident_closes_over_it_and_it_is_not_tried_again(response: Any, action: Any, outside: Any) -> None:
    def body(_incident: Any, respond: Any) -> None:
        first = respond(action, action.params(name="a"))
        respond(action, action.params(name="b"), after=(first,))

    outside.trouble["apply"] = Refused("the switch is stuck")
    assert run_playbook(book(body), Responder(response)).incident.status is IncidentStatus.OPEN
    done = let_stand(response, "switch.on:a")
    assert done.state is ReceiptState.ACCEPTED
    assert done.error == "somebody accepts it as failed: no such switch any more; it was: the switch is stuck"
    run = run_playbook(book(body), Responder(response))
    assert run.incident.status is IncidentStatus.OPEN
    assert [x.state for x in run.incident.receipts] == [ReceiptState.ACCEPTED, ReceiptState.FAILED]
    assert run.incident.receipts[1].error == "not started: switch.on is accepted"
    let_stand(response, "switch.on:b")
    run = run_playbook(book(body), Responder(response))
    assert run.incident.status is IncidentStatus.CLOSED
    assert (outside.done["apply"], outside.on) == (1, set())


def test_what_was_done_and_not_seen_is_undone_all_the_same(response: Any, action: Any, outside: Any) -> None:
    outside.blind = True
    response.execute(action, action.params(name="a"))
    assert let_stand(response, "switch.on").error.startswith("somebody accepts it as unverified: ")
    outside.blind = False
    (step,) = tuple(undo(response, "a mistake"))
    assert step.receipt.state is ReceiptState.REVERTED
    assert outside.on == set()


def test_never_begun(response: Any, action: Any, outside: Any) -> None:
    outside.trouble["capture"] = Refused("no")
    response.execute(action, action.params(name="a"))
    let_stand(response, "switch.on")
    (step,) = tuple(undo(response, "a mistake"))
    assert step.receipt.state is ReceiptState.ALREADY_ABSENT
    assert outside.done["revert"] == 0


def test_needs_a_reason_and_one_step(response: Any, action: Any, outside: Any) -> None:
    response.execute(action, action.params(name="fine"))
    outside.blind = True
    first = response.execute(action, action.params(name="a"))
    response.execute(action, action.params(name="b"))
    incident = response.journal.incident(response.incident_id)
    with pytest.raises(InvalidInput, match="is 2 steps of"):
        unsettled_step(incident, "switch.on")
    assert unsettled_step(incident, str(first.id)).id == first.id
    with pytest.raises(NotFound, match="not settled"):
        unsettled_step(incident, "switch.on:fine")
    with pytest.raises(Refused, match="without a reason"):
        accept(response.journal, first, who="somebody", reason=" ")
    response.journal.revert_pending(first.id)
    with pytest.raises(Refused, match="cannot become accepted"):
        accept(response.journal, first, who="somebody", reason="r")
