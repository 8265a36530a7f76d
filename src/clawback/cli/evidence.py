"""`evidence collect` and `evidence verify`: a snapshot of an agent, and whether one is still as it was taken."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from clawback.cli.agents import connect
from clawback.cli.app import app
from clawback.cli.output import console, print_json, safe
from clawback.errors import NotEnforced, NotFound

__all__: list[str] = []

_JSON = Annotated[bool, typer.Option("--json", help="print JSON")]

evidence = typer.Typer(name="evidence", help="Collect evidence of an agent, and verify it.", no_args_is_help=True)
app.add_typer(evidence)


@evidence.command()
def collect(
    agent: Annotated[str, typer.Argument(help="the agent's id")],
    incident: Annotated[str, typer.Option("--incident", help="file it under this incident")] = "",
    memory: Annotated[
        bool, typer.Option("--memory", help="a frozen agent's memory too; it may hold secrets that nobody knows of")
    ] = False,
    as_json: _JSON = False,
) -> None:
    """Take a bounded, redacted, hashed snapshot. It thaws nothing and asks the agent nothing."""
    bundle = connect().evidence(agent, incident=incident, memory=memory)
    if as_json:
        print_json(bundle)
        return
    console.print(f"{safe(bundle.folder, 400)}: {bundle.files} files, {bundle.bytes:,} bytes")
    console.print(f"manifest sha256 {bundle.sha256}")
    for line in bundle.truncated:
        console.print(f"left out: {safe(line, 300)}")
    if memory:
        sys.stderr.write("warning: the memory may hold secrets that nobody knows of; the files are the owner's alone\n")


@evidence.command()
def verify(
    folder: Annotated[Path, typer.Argument(help="the bundle's folder, with its manifest.json")],
    sha256: Annotated[str, typer.Option("--sha256", help="of the manifest, as a receipt or ticket has it")] = "",
    as_json: _JSON = False,
) -> None:
    """Hash everything again, against the manifest, the chain, and the hash that was written down elsewhere."""
    from clawback.enforcement.evidence import verify as look

    if not folder.is_dir():
        raise NotFound(f"no folder {folder}", hint="clawback show INCIDENT names its evidence")
    found = look(folder, expected=sha256)
    if as_json:
        print_json(asdict(found))
    else:
        chained = "in the chain" if found.chained else "in no chain"
        console.print(f"{safe(folder, 400)}: {found.files} files, {found.bytes:,} bytes, {chained}")
        console.print(f"manifest sha256 {found.sha256 or '-'}")
        for line in found.wrong:
            console.print(f"wrong: {safe(line, 300)}")
    if found.wrong:
        raise NotEnforced(f"{folder}: {len(found.wrong)} things are not as they were", hint="each line says what")
