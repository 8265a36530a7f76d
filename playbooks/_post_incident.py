"""Post-incident: the review and the ticket, as things stand, written anew whenever a resumed response got further."""

from __future__ import annotations

from typing import Any

from clawback.action import Action
from clawback.actions.compliance_document import ACTION as DOCUMENT
from clawback.actions.incident_review import ACTION as REVIEW
from clawback.actions.notify_send import ACTION as NOTIFY
from clawback.actions.ticket_write import ACTION as WRITE_TICKET
from clawback.model import ReceiptState
from clawback.playbook import Respond
from clawback.reports.review import revision as of_record

__all__ = ["document", "finish", "review", "revision", "ticket"]


def review(respond: Respond, policy: str) -> None:
    """Times, causes and what to change, where there is a policy; the ticket; and, if so, word that it is over."""
    respond.join()
    if policy:
        finish(respond, REVIEW)
        respond(REVIEW, REVIEW.params(policy=policy, revision=revision(respond)))
    ticket(respond)
    over = NOTIFY.params(stage="over", over=True)
    said = over.model_dump(mode="json")
    if all(
        receipt.state.settled
        for receipt in respond.incident().receipts
        if (receipt.action, receipt.params) != (NOTIFY.id, said)  # cut off itself, it is sent again
    ):
        respond(NOTIFY, over)


def document(respond: Respond, kind: str) -> None:
    """What an auditor gets, as things stand."""
    finish(respond, DOCUMENT)
    respond(DOCUMENT, DOCUMENT.params(kind=kind, revision=revision(respond)))


def ticket(respond: Respond) -> None:
    """The ticket as things stand; after what is being written of how they stood."""
    respond.join()
    finish(respond, WRITE_TICKET)
    respond(WRITE_TICKET, WRITE_TICKET.params(stage="latest", revision=revision(respond)))


def finish(respond: Respond, action: Action[Any]) -> None:
    """Make the action's earlier revisions that were cut off: left as they are, they would keep the incident open."""
    for cut in respond.incident().receipts:
        if cut.action == action.id and cut.state is not ReceiptState.VERIFIED:
            respond(action, action.params.model_validate(cut.params))


def revision(respond: Respond) -> int:
    """Grows with every attempt at every step, but for those that only write about the others."""
    return of_record(respond.incident())
