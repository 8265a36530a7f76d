"""`doctor`, `catalog`, `replay`: what this host can do, what there is, and what the detectors say of a file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from clawback.cli.app import app, settings
from clawback.cli.output import console, print_json, safe, table
from clawback.errors import NotEnforced

__all__: list[str] = []

_JSON = Annotated[bool, typer.Option("--json", help="print JSON")]


@app.command()
def doctor(*, as_json: _JSON = False) -> None:
    """Say which kernel features and parts are there, what is lost without each, and the fix."""
    from clawback.doctor import examine

    found = examine(settings())
    if as_json:
        print_json(found)
    else:
        for check in found:
            console.print(
                f"{'[green]ok[/green]' if check.ok else '[bold red]--[/bold red]'}  {check.name:22} {safe(check.found)}"
            )
            if not check.ok:
                console.print(f"    {'':22} lost: {safe(check.lost)}")
                console.print(f"    {'':22} fix:  {safe(check.fix, 300)}")
    lacking = [check.name for check in found if not check.ok and check.required]
    if lacking:
        raise NotEnforced(f"this host lacks {', '.join(lacking)}", hint="see the fixes above")


@app.command()
def catalog(*, as_json: _JSON = False) -> None:
    """List the actions, detectors, playbooks and runbooks."""
    from clawback.catalog import load
    from clawback.reports.summary import catalogue

    found = catalogue(load())
    if as_json:
        print_json(found)
        return
    for kind, rows in found.items():
        console.print(f"[bold]{kind}[/bold]")
        for row in rows:
            console.print(f"  {safe(row['id']):38} {safe(row['summary'], 200)}")


@app.command()
def replay(
    files: Annotated[list[Path], typer.Argument(help="telemetry, OCSF JSONL")], *, as_json: _JSON = False
) -> None:
    """Run the detectors over files, changing nothing."""
    from clawback.watch.replay import replay as run

    result = run(files)
    if as_json:
        print_json(result)
        return
    table(
        ("severity", "agent", "detector", "resource", "summary"),
        ((f.severity.name.lower(), f.agent, f.detector, f.resource, f.summary) for f in result.findings),
        empty="no findings",
    )
    rejected = sum(result.rejected.values())
    console.print(f"{result.events} events, {len(result.findings)} findings, {rejected} lines rejected")
