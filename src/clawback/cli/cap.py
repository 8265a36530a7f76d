"""`cap`: how many agents automation may contain in a minute, what waits under that, and lifting it for a while."""

from __future__ import annotations

import time
from typing import Annotated

import typer

from clawback.cli.agents import read_duration
from clawback.cli.app import app, settings
from clawback.cli.approvals import who
from clawback.cli.output import console, print_json, safe, table
from clawback.cli.record import open_journal
from clawback.errors import InvalidInput
from clawback.model import IncidentStatus

__all__: list[str] = []

_MINUTE_NS = 60 * 10**9


@app.command()
def cap(
    *,
    override: Annotated[str, typer.Option("--override", help="lift the cap; the reason, which goes on record")] = "",
    limit: Annotated[int, typer.Option("--to", min=0, help="agents a minute meanwhile; 0: any number")] = 0,
    lasting: Annotated[str, typer.Option("--for", help="for how long: 90s, 30m, at most 8h")] = "15m",
    restore: Annotated[bool, typer.Option("--restore", help="the configured cap again, at once")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="print JSON")] = False,
) -> None:
    """Show the cap on automatic containment and what waits under it; or lift it for a while."""
    from clawback.watch.cap import AUTOMATION
    from clawback.watch.withheld import waits

    chosen = settings()
    if restore and override:
        raise InvalidInput("either --override or --restore", hint="clawback cap --help")
    journal = open_journal()
    if override:
        journal.override(limit, seconds=read_duration(lasting), reason=override, by=who())
    elif restore:
        journal.end_override(who())
    standing = journal.overridden()
    lately = {agent for agent, _ in journal.contained(time.time_ns() - _MINUTE_NS, AUTOMATION)}
    waiting = [one for one in journal.incidents(IncidentStatus.OPEN) if waits(one)]
    if as_json:
        print_json(
            {
                "configured": chosen.watch.contained_per_minute,
                "override": standing,
                "contained_within_a_minute": len(lately),
                "waiting": [{"incident": one.id, "agent": one.agent} for one in waiting],
            }
        )
        return
    limited = standing.per_minute if standing else chosen.watch.contained_per_minute
    console.print(f"{len(lately)} agents contained within a minute, of {limited or 'any number'}")
    if standing:
        left = max(0, standing.until_ns - time.time_ns()) // 10**9
        console.print(f"overridden by {safe(standing.by)} for {left} s more: {safe(standing.reason, 500)}")
    rows = [(one.id, one.agent, one.severity.name.lower(), one.findings[0].title) for one in waiting]
    table(("incident", "agent", "severity", "finding"), rows, empty="nothing waits")
