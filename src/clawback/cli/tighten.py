"""`policy tighten`: make a policy narrower by what an incident showed: a journalled step that waits for a yes."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from clawback.cli.app import settings
from clawback.cli.output import console, print_json, safe
from clawback.cli.policies import policies
from clawback.cli.record import open_journal
from clawback.errors import InvalidInput, NotEnforced, Refused
from clawback.model import ReceiptState, staged_from

__all__: list[str] = []

_LOCK_SECONDS = 5.0


@policies.command("tighten")
def tighten(
    incident: Annotated[str, typer.Argument(help="the incident's id, INC-…")],
    *,
    reason: Annotated[str, typer.Option(help="why; it goes on record")] = "",
    policy: Annotated[str, typer.Option(help="which policy; default: the one the findings name")] = "",
    drop_unused: Annotated[bool, typer.Option("--drop-unused", help="take out rules that were not used, too")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="only show the difference")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="print JSON")] = False,
) -> None:
    """Deny an incident's rogue calls by name, and let the policy's rules shrink to what was of use."""
    from clawback.actions.policy_tighten import ACTION, TightenParams, proposal
    from clawback.cli.approvals import who
    from clawback.connectors.assemble import assemble
    from clawback.response import Response

    chosen = settings()
    journal = open_journal()
    found = journal.incident(incident)
    named = policy or next((staged_from(x.policy) or x.policy for x in found.findings if x.policy), "")
    if not named:
        raise InvalidInput(f"the findings of {found.id} name no policy", hint="--policy NAME")
    response = Response(journal, assemble(chosen), who(), found.id, approvals=chosen.approvals)
    active = response.world.policies.active(named).version
    made, _ = proposal(response.context(), named, active, drop=drop_unused)
    shown = TightenParams(
        policy=named, reason=reason or "to be seen", drop=drop_unused, expected=made.draft.sha256 if reason else ""
    )
    plan = response.plan(ACTION, shown)
    if dry_run or not as_json:
        for line in (*plan.changes, *(f"# {check}" for check in plan.checks)):
            sys.stdout.write("".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in line) + "\n")
    if dry_run:
        return
    if not reason.strip():
        raise InvalidInput("a policy is not changed without a reason", hint="--reason, or --dry-run to look")
    with journal.lock(found.agent, timeout=_LOCK_SECONDS):
        receipt = response.execute(ACTION, shown)
    if as_json:
        print_json(receipt)
    elif receipt.state is ReceiptState.VERIFIED:
        console.print(safe(receipt.proof))
    if receipt.state is ReceiptState.AWAITING:
        hint = f"have it granted (`clawback approvals grant {receipt.error.split()[-1]}`), then say this again"
        raise Refused(f"{named} is not changed yet: {receipt.error}", hint=hint)
    if receipt.state is not ReceiptState.VERIFIED:
        raise NotEnforced(f"{named}: {receipt.state.value}: {receipt.error or receipt.proof}", hint="see the checks")
