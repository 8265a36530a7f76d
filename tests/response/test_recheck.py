"""What was verified once is looked at again: what does not hold reopens its incident; silence changes nothing."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest

from clawback.action import Action, Verification
from clawback.errors import Refused
from clawback.journal import Journal
from clawback.model import Enforcement, Incident, IncidentStatus, Phase, ReceiptState
from clawback.playbook import playbook
from clawback.response import Responder, Response, recheck, run_playbook

State = ReceiptState


@pytest.fixture
def looking(response: Response, action: Action[Any], outside: Any) -> Callable[..., Response]:
    """The response, with an action that can be looked at again; `by` another way to look."""

    def look(_context: Any, params: Any, _captured: Any, _outcome: Any) -> Verification:
        outside.hit("recheck")
        seen = params.name in outside.on
        return Verification(verified=seen, enforcement=Enforcement.NONE, proof=f"{params.name}: {seen}")

    def make(by: Any = look, **changes: Any) -> Response:
        declared = dataclasses.replace(action, recheck=by, **changes)
        response._actions = {action.id: declared}
        return response

    return make


@pytest.fixture
def closed(looking: Callable[..., Response], params: Any) -> Response:
    response = looking()
    assert response.execute(response.action("switch.on"), params).state is State.VERIFIED
    assert response.journal.close(response.incident_id).status is IncidentStatus.CLOSED
    return response


def now(response: Response) -> Incident:
    return response.journal.incident(response.incident_id)


def test_what_holds_stays_and_nothing_is_written(closed: Response, outside: Any) -> None:
    before = now(closed)
    assert recheck(closed) == ()
    assert outside.done["recheck"] == 1
    assert now(closed) == before


def test_drift_reopens_is_audited_and_ends_verified_again(closed: Response, outside: Any, params: Any) -> None:
    outside.on.clear()
    (drifted,) = recheck(closed)
    assert (drifted.state, drifted.proof) == (State.UNVERIFIED, "drift: lamp: False")
    incident = now(closed)
    assert incident.status is IncidentStatus.OPEN
    assert incident.closed_ns == 0
    assert [line.what for line in incident.timeline][-2:] == ["switch.on drifted", "incident reopened"]
    assert recheck(closed) == (), "said once"
    with closed.journal.reading() as connection:
        from clawback.journal.audit import entries, verify

        assert verify(connection)[1] == []
        assert "incident reopened" in {entry.what for entry in entries(connection)}
    assert closed.execute(closed.action("switch.on"), params).state is State.VERIFIED
    assert "lamp" in outside.on
    assert closed.journal.close(closed.incident_id).status is IncidentStatus.CLOSED


def test_what_cannot_be_looked_at_stays_as_it_was_seen(closed: Response, outside: Any, errors: Any) -> None:
    before = now(closed)
    for trouble in (errors["away"]("away"), errors["gone"]("gone"), RuntimeError("a defect")):
        outside.trouble["recheck"] = trouble
        assert recheck(closed) == ()
    assert now(closed) == before


@pytest.mark.parametrize("by", [None, lambda *_: None], ids=["no-way-to-look", "claims-it-no-longer"])
def test_what_claims_nothing_is_not_held_to_it(
    closed: Response, looking: Callable[..., Response], by: Any, outside: Any
) -> None:
    outside.on.clear()
    assert recheck(looking(by)) == ()


@pytest.mark.parametrize("phase", [Phase.IDENTIFY, Phase.RECOVER, Phase.POST_INCIDENT])
def test_only_containment_and_eradication_are_looked_at(
    looking: Callable[..., Response], params: Any, outside: Any, phase: Phase
) -> None:
    response = looking(phase=phase)
    response.execute(response.action("switch.on"), params)
    outside.on.clear()
    assert recheck(response) == ()


def test_what_was_undone_is_not_drift(closed: Response) -> None:
    closed.revert(now(closed).receipts[0])
    assert recheck(closed) == ()


def test_a_receipt_that_claims_nothing_cannot_drift(closed: Response) -> None:
    closed.revert(now(closed).receipts[0])
    with pytest.raises(Refused):
        closed.journal.drifted(now(closed).receipts[0].id, "no", Enforcement.NONE)


def test_standing_incidents_are_the_open_ones_and_those_closed_lately(journal: Journal, closed: Response) -> None:
    at = now(closed).closed_ns
    assert journal.standing(at) == (closed.incident_id,)
    assert journal.standing(at + 1) == ()


def test_one_incident_of_an_instance_is_open_at_a_time(closed: Response, outside: Any) -> None:
    journal, first = closed.journal, now(closed)
    finding = dataclasses.replace(first.findings[0], resource="/another", events=("another",))
    second, opened = journal.open_or_join(finding, playbook="book")
    assert opened
    outside.on.clear()
    with pytest.raises(Refused, match=f"{first.id} is not opened again while another"):
        recheck(closed)
    assert now(closed) == first
    assert journal.close(second).status is IncidentStatus.CLOSED
    assert recheck(closed)


def test_a_containment_that_drifted_and_that_no_playbook_makes_is_made_again(closed: Response, outside: Any) -> None:
    outside.on.clear()
    recheck(closed)
    run = run_playbook(_without_steps(), Responder(closed))
    assert run.incident.status is IncidentStatus.CLOSED
    assert outside.on == {"lamp"}
    assert run.incident.receipts[0].state is State.VERIFIED


def test_one_that_holds_after_all_is_looked_at_and_not_made(closed: Response, outside: Any) -> None:
    outside.on.clear()
    recheck(closed)
    outside.on.add("lamp")  # somebody else mended it
    made = outside.done["apply"]
    run = run_playbook(_without_steps(), Responder(closed))
    assert run.incident.status is IncidentStatus.CLOSED
    assert outside.done["apply"] == made


def test_one_that_cannot_be_looked_at_waits(closed: Response, outside: Any, errors: Any) -> None:
    outside.on.clear()
    recheck(closed)
    outside.trouble["recheck"] = errors["away"]("away")
    run = run_playbook(_without_steps(), Responder(closed))
    assert run.incident.status is IncidentStatus.OPEN
    assert run.incident.receipts[0].drifted
    assert outside.on == set()


def test_one_that_was_never_proved_is_made_again_too(response: Response, action: Any, outside: Any) -> None:
    outside.blind = True
    response.execute(action, action.params(name="lamp"))
    outside.on.clear()
    outside.blind = False
    run = run_playbook(_without_steps(), Responder(response))
    assert run.incident.status is IncidentStatus.CLOSED
    assert outside.on == {"lamp"}


def _without_steps() -> Any:
    return playbook(id="book", title="Book", answers={"d"}, runbook="book")(lambda _incident, _respond: None)
