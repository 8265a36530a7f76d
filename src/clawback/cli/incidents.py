"""`incidents`, `show`, `resume`, `ticket export`: the record, by way of the journal."""

from __future__ import annotations

import asyncio
import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from clawback.cli.app import app, settings
from clawback.cli.output import console, print_json, table
from clawback.cli.record import open_journal
from clawback.errors import NotEnforced
from clawback.model import IncidentStatus

if TYPE_CHECKING:
    from clawback.orchestrate.end import End

__all__: list[str] = []

_JSON = Annotated[bool, typer.Option("--json", help="print JSON")]
_INCIDENT = Annotated[str, typer.Argument(help="the incident's id, INC-…")]

tickets = typer.Typer(no_args_is_help=True, help="Incident tickets.")
app.add_typer(tickets, name="ticket")


incidents = typer.Typer(invoke_without_command=True, help="Incidents: list them, review one.")
app.add_typer(incidents, name="incidents")


class _Format(StrEnum):
    JIRA = "jira"
    MARKDOWN = "markdown"


@incidents.callback()
def list_incidents(context: typer.Context, *, as_json: _JSON = False) -> None:
    """List the incidents, newest first."""
    if context.invoked_subcommand is not None:
        return
    from clawback.reports.summary import summarise

    found = [summarise(incident) for incident in open_journal().incidents()]
    found.sort(key=lambda row: row["opened_ns"], reverse=True)
    if as_json:
        print_json(found)
        return
    columns = ("id", "agent", "severity", "status", "phase", "unsettled", "orchestration", "playbook", "drill")
    table(columns, ([row[column] for column in columns] for row in found), empty="no incidents")


@app.command()
def show(incident: _INCIDENT, *, as_json: _JSON = False) -> None:
    """Show one incident: timeline, receipts, times."""
    from clawback.reports.summary import record
    from clawback.reports.timeline import render

    found = open_journal().incident(incident)
    if as_json:
        print_json(record(found))
    else:
        console.print(render(found))


@app.command()
def resume(
    incident: Annotated[str | None, typer.Argument(help="one incident; all open ones where none is named")] = None,
    *,
    as_json: _JSON = False,
) -> None:
    """Finish what was cut off, failed or pending in open incidents, repeating nothing that was verified."""
    ends = asyncio.run(_resume(incident))
    rows = [(end.incident, end.status, end.orchestration, ", ".join(end.pending), end.error) for end in ends]
    if as_json:
        print_json(ends)
    else:
        table(("incident", "status", "orchestration", "pending", "error"), rows, empty="nothing to resume")
    still = [end.incident for end in ends if end.status != IncidentStatus.CLOSED.value]
    if still:
        raise NotEnforced(f"still open: {', '.join(still)}", hint=f"clawback show {still[0]}")


async def _resume(incident: str | None) -> tuple[End, ...]:
    from clawback import catalog
    from clawback.connectors.assemble import assemble
    from clawback.orchestrate.engine import Engine
    from clawback.orchestrate.link import Link

    chosen = settings()
    units = catalog.load()
    engine = Engine(
        open_journal(),
        lambda: assemble(chosen),
        units.playbooks,
        actions=units.actions,
        approvals=chosen.approvals,
    )
    if incident is not None:
        engine.journal.incident(incident)  # NotFound is for the command line to say
    link = Link(chosen, engine)
    try:
        await link.look()
        return await engine.resume_all() if incident is None else (await engine.run(incident),)
    finally:
        await link.close()
        engine.close()


@tickets.command("export")
def export(
    incident: _INCIDENT,
    form: Annotated[_Format, typer.Option("--format", help="what to write")] = _Format.MARKDOWN,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="a file; default: stdout")] = None,
) -> None:
    """Write an incident's ticket as Markdown, or as JSON for Jira Cloud's REST v3 `POST /issue`."""
    from clawback.reports.ticket import jira, markdown

    found = open_journal().incident(incident)
    text = markdown(found) if form is _Format.MARKDOWN else jira(found)
    if output is None:
        sys.stdout.write(text if text.endswith("\n") else text + "\n")
    else:
        output.write_text(text, encoding="utf-8")
