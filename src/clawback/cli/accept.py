"""`accept`: a person lets a step stand as it is, so that its incident can close over it."""

from __future__ import annotations

from typing import Annotated

import typer

from clawback.cli.app import app
from clawback.cli.consent import insist
from clawback.cli.output import console, print_json, safe
from clawback.cli.record import open_journal

__all__: list[str] = []

_NAME = "receipt.accept"
_LOCK_SECONDS = 5.0


@app.command()
def accept(
    incident: Annotated[str, typer.Argument(help="the incident's id, INC-…")],
    step: Annotated[str, typer.Argument(help="its action's id, its key or its receipt's number, see `show --json`")],
    *,
    reason: Annotated[str, typer.Option(help="why; it goes on record")],
    as_json: Annotated[bool, typer.Option("--json", help="print JSON")] = False,
) -> None:
    """Let a step stand that was denied, cannot be done or cannot be proved: it is not tried again."""
    from clawback.cli.approvals import who
    from clawback.response import accept as let_stand
    from clawback.response import unsettled_step

    journal = open_journal()
    found = journal.incident(incident)
    with journal.lock(found.agent, timeout=_LOCK_SECONDS):
        found = journal.incident(incident)
        receipt = unsettled_step(found, step)
        insist(
            found,
            _NAME,
            receipt.phase,
            {"receipt": receipt.id, "attempts": receipt.attempts, "reason": reason},
            shown=(f"  {receipt.action} stays {receipt.state.value}: {receipt.error or receipt.proof}",),
            consent=False,
        )
        done = let_stand(journal, receipt, who=who(), reason=reason)
        journal.enqueue(found.id)
    if as_json:
        print_json(done)
        return
    left = [one for one in journal.incident(incident).receipts if not one.state.settled]
    then = (
        f"still open: {', '.join(one.action for one in left[:8])}"
        if left
        else f"`clawback resume {found.id}` closes it, or a worker"
    )
    console.print(f"{safe(done.action)} is accepted as it stands in {safe(found.id)}; {safe(then)}")
