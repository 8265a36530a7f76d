"""`halt`, `halts`, `lift`: many agents at once, by way of the core alone."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from typing import Annotated

import typer

from clawback.cli.agents import connect, operator, read_duration, read_level
from clawback.cli.app import app
from clawback.cli.output import console, print_json, safe, table
from clawback.errors import InvalidInput, NotEnforced
from clawback.model import Enforcement, HaltedAgent, HaltReport, Selector, SelectorKind

__all__: list[str] = []

_JSON = Annotated[bool, typer.Option("--json", help="print JSON")]
_LOOK_SECONDS = 0.1


@app.command()
def halt(
    which: Annotated[str, typer.Argument(help="all, tenant, team, tag or tree")],
    value: Annotated[
        str, typer.Argument(help="the tenant's or team's name, the tag as K=V, or the agent at the tree's top")
    ] = "",
    *,
    reason: Annotated[str, typer.Option("--reason", help="why; kept with the halt")],
    level: Annotated[str, typer.Option("--level", help="freeze, isolate, restrict, seal or stop")] = "isolate",
    review: Annotated[
        str, typer.Option("--for", help="report the halt as due after 90s, 30m, 8h, 7d; it is never lifted by itself")
    ] = "",
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="wait for the levels after freezing too")] = True,
    as_json: _JSON = False,
) -> None:
    """Freeze every agent that matches, at once, then isolate; and refuse to start any, until it is lifted."""
    try:
        kind = SelectorKind(which)
    except ValueError:
        words = ", ".join(SelectorKind)
        raise InvalidInput(f"{which!r} is nothing to halt by", hint=f"one of {words}") from None
    core = connect()
    report = core.halt(
        Selector(kind=kind, value=value),
        read_level(level),
        reason=reason,
        by=operator(),
        due_seconds=read_duration(review),
    )
    sys.stderr.write(
        f"{report.halt.id}: {len(report.agents)} agents told to freeze in {report.struck_ms:.1f} ms, "
        f"read back in {report.verified_ms:.1f} ms\n"
    )
    while wait and any(one.pending for one in report.agents):
        time.sleep(_LOOK_SECONDS)
        report = core.halt_report(report.halt.id)
    _show(report, as_json=as_json)


@app.command()
def halts(
    number: Annotated[str, typer.Argument(help="a halt's id: show its agents", metavar="[HALT]")] = "",
    *,
    as_json: _JSON = False,
) -> None:
    """List the halts that stand, or show one agent by agent."""
    core = connect()
    if number:
        _show(core.halt_report(number), as_json=as_json)
        return
    found = core.halts()
    if as_json:
        print_json(found)
        return
    table(
        ("halt", "of", "levels", "by", "user", "age", "due", "reason"),
        (
            (
                one.id,
                one.selector,
                "+".join(level.word for level in one.order.levels),
                one.order.by,
                one.order.uid,
                f"{(time.time_ns() - one.order.placed_ns) / 1e9:.0f} s",
                "due" if one.order.due else "-",
                one.order.reason,
            )
            for one in found
        ),
        empty="no halts",
    )


@app.command()
def lift(
    number: Annotated[str, typer.Argument(help="the halt's id, or all", metavar="HALT")],
    *,
    reason: Annotated[str, typer.Option("--reason", help="why; kept in the record")],
    as_json: _JSON = False,
) -> None:
    """End a halt: agents that nothing else holds go on, and may be started again."""
    core = connect()
    numbers = [one.id for one in core.halts()] if number == "all" else [number]
    lifted = [one for each in numbers for one in core.lift(each, reason=reason, by=operator())]
    if as_json:
        print_json(lifted)
    else:
        for one in lifted:
            for result in one.results:
                word = "undone" if result.enforcement is Enforcement.NONE else "stays"
                console.print(f"{safe(one.agent):24} {result.level.word:9} {word:8} {safe(result.observed, 300)}")
        console.print(f"{len(numbers)} halts lifted, {len(lifted)} agents")
    left = sorted({one.agent for one in lifted for result in one.results if result.enforcement is not Enforcement.NONE})
    if left:
        raise NotEnforced(
            f"{len(left)} agents are not as before: {', '.join(left[:10])}",
            hint="each line says why: another hold, or a level that only a relaunch undoes",
        )


def _show(report: HaltReport, *, as_json: bool) -> None:
    if as_json:
        print_json(report)
    else:
        table(
            ("agent", "instance", "level", "enforced", "observed"),
            (
                (one.agent, one.instance, result.level.word, result.enforcement.value, result.observed)
                for one in report.agents
                for result in one.results
            ),
            empty="no agent of this host matches; starts of such are refused",
        )
    short = _short(report.agents)
    if short:
        raise NotEnforced(
            f"{report.halt.id}: {len(short)} agents are not held in full: {', '.join(short[:10])}",
            hint="each line says what is missing; clawback doctor says what this host lacks",
        )
    if report.durable_ms < 0:
        raise NotEnforced(f"{report.halt.id} could not be written to disk", hint="the core's log says why")


def _short(agents: Sequence[HaltedAgent]) -> list[str]:
    return [one.agent for one in agents if any(x.enforcement is not Enforcement.FULL for x in one.results)]
