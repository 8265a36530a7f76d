"""`audit verify`, `audit head`, `audit export`: the record of who did what, and whether it is whole."""

from __future__ import annotations

import json
import sys
from typing import Annotated

import typer

from clawback.cli.app import app
from clawback.cli.output import console, print_json, safe
from clawback.cli.record import open_journal

__all__: list[str] = []

audits = typer.Typer(no_args_is_help=True, help="The audit record of the journal.")
app.add_typer(audits, name="audit")


@audits.command()
def verify(
    *,
    head: Annotated[str, typer.Option(help="a head noted earlier, SEQ:HASH; the record must contain it")] = "",
    as_json: Annotated[bool, typer.Option("--json", help="print JSON")] = False,
) -> None:
    """Look whether anything in the journal was changed behind its back; exit 1 if so."""
    count, faults, newest = open_journal().audit_verify(noted=head)
    if as_json:
        print_json({"entries": count, "head": newest, "faults": faults})
    else:
        for fault in faults:
            console.print(f"{safe(fault.where)} {safe(fault.why)}")
        console.print(f"{count} entries, {'unbroken' if not faults else f'{len(faults)} faults'}; head {newest}")
    raise typer.Exit(1 if faults else 0)


@audits.command("head")
def print_head() -> None:
    """Print the newest entry's SEQ:HASH, to be kept where the journal's keeper cannot write."""
    console.print(open_journal().audit_head())


@audits.command()
def export() -> None:
    """Write the whole record as OCSF events, one JSON object a line."""
    from clawback.reports.audit_ocsf import to_ocsf

    for entry in open_journal().audit_entries():
        sys.stdout.write(json.dumps(to_ocsf(entry), ensure_ascii=True) + "\n")
