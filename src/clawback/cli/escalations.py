"""`escalations [list] | allow ID | deny ID`: system calls that wait for a person, by way of the supervisor alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from clawback.cli.agents import operator
from clawback.cli.app import app, settings
from clawback.cli.output import console, print_json, safe, table
from clawback.errors import NotEnforced

if TYPE_CHECKING:
    from clawback.enforcement.supervise.client import SupervisorClient

__all__: list[str] = []

escalations = typer.Typer(help="System calls that wait for a person to allow or deny them.")
app.add_typer(escalations, name="escalations")

_JSON = Annotated[bool, typer.Option("--json", help="print JSON")]
_ID = Annotated[str, typer.Argument(help="the escalation's id, esc-…")]
_REASON = Annotated[str, typer.Option("--reason", help="why; kept in the record")]
_BY = Annotated[str, typer.Option("--by", help="who decides; default: the user at this terminal")]


def _supervisor() -> SupervisorClient:
    from clawback.enforcement.supervise.client import SupervisorClient

    return SupervisorClient(settings().state)


@escalations.callback(invoke_without_command=True)
def _default(context: typer.Context, *, as_json: _JSON = False) -> None:
    if context.invoked_subcommand is None:
        _list(as_json=as_json)


@escalations.command("list")
def list_pending(*, as_json: _JSON = False) -> None:
    """List what waits, oldest first."""
    _list(as_json=as_json)


def _list(*, as_json: bool) -> None:
    found = _supervisor().escalations()
    if as_json:
        print_json(found)
        return
    table(
        ("id", "agent", "call", "arguments", "pid", "program", "expires"),
        (
            (
                ask["id"],
                ask["agent"],
                ask["call"],
                " ".join(f"{name}={value}" for name, value in ask["arguments"].items()),
                ask["pid"],
                ask["exe"],
                f"{ask['expires_in_seconds']:.0f} s",
            )
            for ask in found
        ),
        empty="nothing waits",
    )


@escalations.command("allow")
def allow(id_: _ID, reason: _REASON, by: _BY = "", *, as_json: _JSON = False) -> None:
    """Allow this one call, once. Says what came of it."""
    _answer(id_, allow=True, reason=reason, by=by, as_json=as_json)


@escalations.command("deny")
def deny(id_: _ID, reason: _REASON, by: _BY = "", *, as_json: _JSON = False) -> None:
    """Refuse it: the call fails with EPERM."""
    _answer(id_, allow=False, reason=reason, by=by, as_json=as_json)


def _answer(id_: str, *, allow: bool, reason: str, by: str, as_json: bool) -> None:
    # Who is at the keyboard is said in any case: a name that somebody gave stands beside it.
    who = f"{by} ({operator()})" if by else operator()
    told: dict[str, Any] = _supervisor().answer(id_, allow=allow, by=who, reason=reason)
    if as_json:
        print_json(told)
    else:
        console.print(f"{safe(told['agent'])}: {safe(told['call'])}: {safe(told['outcome'], 300)}")
    wanted = {"done", "let go"} if allow else {"denied"}
    if told["outcome"] not in wanted:
        raise NotEnforced(f"{id_}: {told['outcome']}", hint="clawback escalations lists what waits now")
