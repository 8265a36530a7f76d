"""`incidents review`: what an incident teaches, written anew; and a person's word on what caused it."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from clawback.cli.app import settings
from clawback.cli.incidents import incidents
from clawback.cli.record import open_journal
from clawback.errors import InvalidInput, NotEnforced
from clawback.model import Receipt, ReceiptState, staged_from

__all__: list[str] = []

_LOCK_SECONDS = 5.0


@incidents.command("review")
def review(
    incident: Annotated[str, typer.Argument(help="the incident's id, INC-…")],
    *,
    cause: Annotated[str, typer.Option(help="the root cause that you decided on; it goes on record")] = "",
    reason: Annotated[str, typer.Option(help="what that rests on")] = "",
    as_json: Annotated[bool, typer.Option("--json", help="print the review as JSON")] = False,
) -> None:
    """Write the review as things stand and print it; with --cause, record your word on what caused it first."""
    from clawback.actions._causes import CATEGORIES
    from clawback.actions.incident_cause import ACTION as CAUSE
    from clawback.actions.incident_review import ACTION as REVIEW
    from clawback.cli.approvals import who
    from clawback.connectors.assemble import assemble
    from clawback.reports.review import revision
    from clawback.response import Response

    if cause and cause not in CATEGORIES:
        raise InvalidInput(f"--cause {cause[:60]!a}: not one that there is", hint=f"one of: {', '.join(CATEGORIES)}")
    if cause and not reason.strip():
        raise InvalidInput("a cause is not set without a reason", hint="--reason")
    chosen = settings()
    journal = open_journal()
    found = journal.incident(incident)
    response = Response(journal, assemble(chosen), who(), found.id, approvals=chosen.approvals)
    policy = next((staged_from(x.policy) or x.policy for x in found.findings if x.policy), "none")
    with journal.lock(found.agent, timeout=_LOCK_SECONDS):
        if cause:
            before = sum(receipt.action == CAUSE.id for receipt in found.receipts)
            _done(response.execute(CAUSE, CAUSE.params(cause=cause, reason=reason, revision=before)))
        # A revision of its own for whoever asks again: what is outside the record may have changed.
        number = revision(journal.incident(found.id)) + sum(x.action == REVIEW.id for x in found.receipts)
        _done(response.execute(REVIEW, REVIEW.params(policy=policy, revision=number)))
    texts = response.world.reviews.read(found.id)
    sys.stdout.write(texts["json" if as_json else "markdown"])


def _done(receipt: Receipt) -> None:
    if receipt.state is not ReceiptState.VERIFIED:
        raise NotEnforced(
            f"{receipt.action}: {receipt.state.value}: {receipt.error or receipt.proof}", hint="see `show`"
        )
