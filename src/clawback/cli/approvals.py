"""`approvals list`, `show`, `grant`, `deny`, `code`, `renew`: a person's word on the steps that wait for one."""

from __future__ import annotations

import os
import pwd
import sys
import time
from pathlib import Path
from typing import Annotated

import typer

from clawback.cli.app import app, settings
from clawback.cli.output import console, print_json, safe, table
from clawback.cli.record import open_journal
from clawback.errors import InvalidInput, Refused
from clawback.model import Approval, ApprovalState

__all__ = ["who"]

_NO_LOGIN = 0xFFFFFFFF

approvals = typer.Typer(no_args_is_help=True, help="Steps that wait for a person.")
app.add_typer(approvals, name="approvals")

_JSON = Annotated[bool, typer.Option("--json", help="print JSON")]
_ID = Annotated[str, typer.Argument(help="the approval's id, APR-…")]
_REASON = Annotated[str, typer.Option(help="why; it goes on record")]
_NONCE = Annotated[
    str, typer.Option(help="the question's nonce, as `show --json` printed it; without it the question is shown first")
]


def who() -> str:
    """The user that runs this, as the kernel knows it: nobody can say to be another.

    The login's user where there was a login: it stays what it is through `sudo` (loginuid, see proc(5)).
    """
    uid = os.getuid()
    try:
        login = int(Path("/proc/self/loginuid").read_text())
    except (OSError, ValueError):  # a kernel without audit
        login = _NO_LOGIN
    if login != _NO_LOGIN:
        uid = login
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"uid {uid}"


@approvals.command("list")
def list_approvals(
    *,
    every: Annotated[bool, typer.Option("--all", help="those that were answered or expired too")] = False,
    as_json: _JSON = False,
) -> None:
    """List what waits for an answer."""
    found = open_journal().approvals(*(() if every else (ApprovalState.PENDING, ApprovalState.GRANTED)))
    if as_json:
        print_json(found)
        return
    columns = ("id", "state", "incident", "action", "asked by", "grants", "expires in")
    table(columns, (_row(one) for one in found), empty="nothing waits for an approval")


def _row(one: Approval) -> tuple[object, ...]:
    left = max(0, one.expires_ns - time.time_ns()) // 10**9
    grants = f"{sum(vote.grant for vote in one.votes)} of {one.quorum}"
    live = one.state in (ApprovalState.PENDING, ApprovalState.GRANTED)
    return one.id, one.state.value, one.incident, one.action, one.asked_by, grants, f"{left} s" if live else "-"


@approvals.command()
def show(approval: _ID, *, as_json: _JSON = False) -> None:
    """Show what is asked: the step, its diff, and the answers so far."""
    _show(open_journal().approval(approval), as_json=as_json)


def _show(one: Approval, *, as_json: bool = False) -> None:
    if as_json:
        print_json(one)
        return
    console.print(f"{safe(one.id)} {one.state.value}: {safe(one.action)} in {safe(one.incident)}, {one.phase.value}")
    console.print(f"asked by {safe(one.asked_by)}; needs {one.quorum} of {safe(', '.join(one.approvers) or 'anybody')}")
    for line in one.shown:
        console.print(f"  {safe(line, 400)}")
    for vote in one.votes:
        console.print(
            f"{'granted' if vote.grant else 'denied'} by {safe(vote.who)} ({safe(vote.channel)}): {safe(vote.reason)}"
        )


@approvals.command()
def grant(approval: _ID, *, reason: _REASON = "", nonce: _NONCE = "", as_json: _JSON = False) -> None:
    """Say yes. The step is made once, with exactly what was shown."""
    _answer(approval, nonce, grants=True, reason=reason, as_json=as_json)


@approvals.command()
def deny(approval: _ID, *, reason: _REASON = "", nonce: _NONCE = "", as_json: _JSON = False) -> None:
    """Say no. What depends on the step is not made either."""
    _answer(approval, nonce, grants=False, reason=reason, as_json=as_json)


def _answer(approval: str, nonce: str, *, grants: bool, reason: str, as_json: bool) -> None:
    journal = open_journal()
    one = journal.approval(approval)
    if not nonce and one.state is ApprovalState.PENDING:
        if not sys.stdin.isatty():
            raise InvalidInput(
                f"{approval}: whose answer is this?", hint="at a terminal it is shown and asked; else give --nonce"
            )
        _show(one)
        typer.confirm(f"{'Grant' if grants else 'Deny'} it?", abort=True)
        nonce = one.nonce
    _show(journal.answer(approval, nonce=nonce, who=who(), grant=grants, reason=reason, channel="cli"), as_json=as_json)


@approvals.command()
def code(approval: _ID) -> None:
    """Print your one-time code for this question, to answer it in Prefect with."""
    from clawback.connectors.codes import code_for

    one = open_journal().approval(approval)
    if one.state is not ApprovalState.PENDING:
        raise Refused(f"{approval} is {one.state.value}", hint="`clawback approvals renew` asks anew")
    console.print(f"{safe(who())} {code_for(settings().state, one, who())}")


@approvals.command()
def renew(approval: _ID, *, as_json: _JSON = False) -> None:
    """Ask the same anew, after a denial or too long a silence."""
    _show(open_journal().renew(approval, who()), as_json=as_json)
