"""`ingest`: other products' alerts and issuers' records of use, into the telemetry that the detectors read."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from clawback.cli.agents import connect
from clawback.cli.app import app, settings
from clawback.cli.output import console, print_json, safe
from clawback.errors import InvalidInput

__all__: list[str] = []


@app.command()
def ingest(
    file: Annotated[str, typer.Argument(help="OCSF JSON lines, `-` for the standard input")] = "-",
    *,
    as_json: Annotated[bool, typer.Option("--json", help="print JSON")] = False,
) -> None:
    """Take OCSF Detection Findings (2004) and Authentications (3002) that concern agents of this host."""
    from clawback.watch.ingest import Ingest

    chosen = settings()
    taking = Ingest(chosen.telemetry, connect().agents(), own_addresses=chosen.own_addresses)
    try:
        if file == "-":
            result = taking.take(sys.stdin.buffer, "-")
        else:
            with Path(file).open("rb") as lines:
                result = taking.take(lines, file)
    except OSError as error:
        raise InvalidInput(f"{file}: {error.strerror}", hint="a file of OCSF JSON lines, or -") from None
    finally:
        taking.close()
    if as_json:
        print_json(result)
        return
    console.print(
        f"{result.written} events about {len(result.agents)} agents: {safe(', '.join(result.agents) or 'none')}"
    )
    console.print(f"{result.unrelated} lines concern no agent of this host")
    for line in result.refused:
        console.print(safe(line, 300))
