"""`undo`: take back an incident's response, as far as it can be, and say of each step what became of it."""

from __future__ import annotations

from typing import Annotated

import typer

from clawback.cli.app import app, settings
from clawback.cli.consent import insist
from clawback.cli.output import print_json, table
from clawback.cli.record import open_journal
from clawback.errors import NotEnforced
from clawback.model import Incident, Phase

__all__: list[str] = []

_NAME = "incident.undo"
_LOCK_SECONDS = 5.0


@app.command()
def undo(
    incident: Annotated[str, typer.Argument(help="the incident's id, INC-…")],
    *,
    reason: Annotated[str, typer.Option(help="why; it goes on record")],
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="only say what would be undone, and what cannot be")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="print JSON")] = False,
) -> None:
    """Undo everything that an incident's response did, the last step first: it lets the agent go, too."""
    from clawback.cli.approvals import who
    from clawback.connectors.assemble import assemble
    from clawback.response import Response, plan_undo
    from clawback.response import undo as take_back

    chosen = settings()
    journal = open_journal()
    found = journal.incident(incident)
    response = Response(journal, assemble(chosen), who(), found.id)
    if dry_run:
        steps = plan_undo(response)
    else:
        with journal.lock(found.agent, timeout=_LOCK_SECONDS):
            _ask(found, reason)
            steps = tuple(take_back(response, reason))
    if as_json:
        print_json(steps)
    else:
        rows = ((x.fate.value, x.receipt.action, x.receipt.state.value, x.note or x.receipt.error) for x in steps)
        table(("fate", "action", "state", "note"), rows, empty="nothing was done")
    if not dry_run and any(not step.honest for step in steps):
        raise NotEnforced("not everything could be seen to be undone", hint=f"clawback show {found.id}")


def _ask(found: Incident, reason: str) -> None:
    insist(
        found,
        _NAME,
        Phase.RECOVER,
        {"reason": reason, "receipts": [[receipt.id, receipt.attempts] for receipt in found.receipts]},
        shown=[f"- {receipt.action} {receipt.state.value}" for receipt in reversed(found.receipts)],
        consent=True,
    )
