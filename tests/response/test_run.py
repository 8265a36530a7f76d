"""A playbook's run: phases and dependencies as written, closed only when all is settled, run again for what joins."""

from __future__ import annotations

import dataclasses
from typing import Any

from clawback.errors import Refused, Unreachable
from clawback.model import IncidentStatus, Phase, ReceiptState
from clawback.playbook import playbook
from clawback.response import Responder, run_playbook


def book(body: Any) -> Any:
    return playbook(id="book", title="Book", answers={"d"}, runbook="book")(body)


def test_runs_and_closes(response: Any, action: Any) -> None:
    def body(incident: Any, respond: Any) -> None:
        with respond.phase(Phase.CONTAIN):
            first = respond(action, action.params(name="a"))
            with respond.phase(Phase.ERADICATE):
                respond(action, action.params(name="b"), after=(first,))
            respond(action, action.params(name="c"))
        respond(action, action.params(name="d"))

    run = run_playbook(book(body), Responder(response))
    assert run.incident.status is IncidentStatus.CLOSED
    assert [(receipt.key[-1], receipt.phase) for receipt in run.incident.receipts] == [
        ("a", Phase.CONTAIN),
        ("b", Phase.ERADICATE),
        ("c", Phase.CONTAIN),
        ("d", action.phase),
    ]
    assert not run.pending


def test_goes_on_after_what_is_away_and_completes_when_it_returns(response: Any, action: Any, outside: Any) -> None:
    def body(incident: Any, respond: Any) -> None:
        first = respond(action, action.params(name="a"))
        respond(action, action.params(name="b"), after=(first,))
        respond(action, action.params(name="c"))

    outside.trouble["apply"] = Unreachable("away")
    run = run_playbook(book(body), Responder(response))
    assert run.incident.status is IncidentStatus.OPEN
    assert [receipt.state for receipt in run.incident.receipts] == [
        ReceiptState.INTENDED,
        ReceiptState.FAILED,
        ReceiptState.VERIFIED,
    ]
    assert len(run.pending) == 2
    run = run_playbook(book(body), Responder(response))
    assert run.incident.status is IncidentStatus.CLOSED
    assert outside.done["effect"] == 3


def test_runs_again_for_a_finding_that_joined(response: Any, action: Any) -> None:
    def body(incident: Any, respond: Any) -> None:
        if len(incident.findings) == 1:
            extra = dataclasses.replace(incident.findings[0], resource="/more", events=("more",))
            response.journal.open_or_join(extra, playbook="book")
        for finding in incident.findings:
            respond(action, action.params(name=finding.resource))

    run = run_playbook(book(body), Responder(response))
    assert run.incident.status is IncidentStatus.CLOSED
    assert len(run.incident.receipts) == 2


def test_findings_that_never_stop_do_not_keep_it_in_a_circle(response: Any, action: Any) -> None:
    rounds = []

    def body(incident: Any, respond: Any) -> None:
        rounds.append(1)
        name = f"/{len(rounds)}"
        response.journal.open_or_join(
            dataclasses.replace(incident.findings[0], resource=name, events=(name,)), playbook="book"
        )

    run = run_playbook(book(body), Responder(response))
    assert run.incident.status is IncidentStatus.OPEN
    assert len(rounds) == 3


def test_a_playbook_that_raises_leaves_the_incident_open(response: Any, action: Any) -> None:
    def body(incident: Any, respond: Any) -> None:
        respond(action, action.params(name="a"))
        raise Refused("a defect of the playbook")

    run = run_playbook(book(body), Responder(response))
    assert "a defect of the playbook" in run.error
    assert run.incident.status is IncidentStatus.OPEN
    assert run.incident.timeline[-1].what == "playbook stopped"


def test_a_revert_that_was_cut_off_is_finished_and_not_done_again(response: Any, action: Any, outside: Any) -> None:
    def body(incident: Any, respond: Any) -> None:
        respond(action, action.params(name="a"))

    receipt = response.execute(action, action.params(name="a"))
    outside.trouble["revert"] = Unreachable("away")
    assert response.revert(receipt).state is ReceiptState.REVERT_PENDING
    assert response.execute(action, action.params(name="a")).state is ReceiptState.REVERT_PENDING
    run = run_playbook(book(body), Responder(response))
    assert run.incident.status is IncidentStatus.CLOSED
    assert run.incident.receipts[0].state is ReceiptState.REVERTED
    assert not outside.on
    assert outside.done["apply"] == 1


def test_a_containment_that_no_step_is_for_is_finished(response: Any, action: Any, outside: Any) -> None:
    """A reflex that was cut off, say, of an alert whose playbook contains nothing."""

    def body(incident: Any, respond: Any) -> None:
        respond(action, action.params(name="b"))

    outside.after["apply"] = Unreachable("no answer in time")
    cut = response.execute(action, action.params(name="a"), phase=Phase.CONTAIN)
    assert cut.state is ReceiptState.INTENDED
    run = run_playbook(book(body), Responder(response))
    assert run.incident.status is IncidentStatus.CLOSED
    assert {receipt.key[-1]: receipt.state for receipt in run.incident.receipts} == {
        "a": ReceiptState.VERIFIED,
        "b": ReceiptState.VERIFIED,
    }
    assert outside.done["effect"] == 2


def test_what_the_playbook_itself_waits_for_is_not_tried_twice_in_a_run(response: Any, action: Any) -> None:
    from clawback.action import Action

    away: Action[Any] = dataclasses.replace(action, apply=_away)
    response._actions = {action.id: away}

    def body(incident: Any, respond: Any) -> None:
        with respond.phase(Phase.CONTAIN):
            respond(away, action.params(name="a"))

    for attempts in (1, 2):
        run = run_playbook(book(body), Responder(response))
        assert [(receipt.state, receipt.attempts) for receipt in run.incident.receipts] == [
            (ReceiptState.INTENDED, attempts)
        ]


def _away(*_: Any) -> dict[str, Any]:
    raise Unreachable("away")
