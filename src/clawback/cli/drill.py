"""`demo`, `drill run`, `drill list`: rehearsals, on the production code path, in disposable surroundings."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from clawback.cli.app import app
from clawback.cli.output import console, print_json, table

__all__: list[str] = []

drills = typer.Typer(no_args_is_help=True, help="Tabletop drills.")
app.add_typer(drills, name="drill")

_JSON = Annotated[bool, typer.Option("--json", help="print JSON")]


@app.command()
def demo(
    *,
    as_json: _JSON = False,
    keep: Annotated[Path | None, typer.Option("--keep", help="folder to leave ticket, evidence and journal in")] = None,
) -> None:
    """A rogue agent is detected, contained, cut off and restored: all real, all on this machine, in a minute."""
    from clawback.demo import run

    raise typer.Exit(run(as_json=as_json, keep=keep))


@drills.command("list")
def list_drills(*, as_json: _JSON = False) -> None:
    """List the drills."""
    from clawback.drills import find

    found = find()
    if as_json:
        print_json([{"name": drill.name, "title": drill.title, "playbook": drill.playbook} for drill in found])
    else:
        table(("name", "playbook", "title"), ((d.name, d.playbook, d.title) for d in found), empty="no drills")


@drills.command("run")
def run_drill(
    name: Annotated[str, typer.Argument(help="the drill's folder name")],
    *,
    as_json: _JSON = False,
    keep: Annotated[Path | None, typer.Option("--keep", help="folder to leave the drill's state in")] = None,
) -> None:
    """Run one drill; exit 0 only when all that it expects was observed."""
    from clawback.drills import load, rehearse

    outcome = rehearse(load(name), keep=keep)
    if as_json:
        print_json(outcome)
    else:
        for line in outcome.lines():
            console.print(line)
    raise typer.Exit(0 if outcome.passed else 1)
