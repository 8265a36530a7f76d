"""`agents`, `contain`, `release`: agents one by one, by way of the core alone."""

from __future__ import annotations

import getpass
import os
import sys
import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from clawback.cli.app import app, settings
from clawback.cli.output import console, print_json, safe, table
from clawback.errors import InvalidInput, NotEnforced
from clawback.model import AgentInfo, Enforcement, Hold, Level, LevelResult

if TYPE_CHECKING:
    from clawback.enforcement.core.client import CoreClient

__all__ = ["connect", "operator", "print_results", "read_duration", "read_level"]

_JSON = Annotated[bool, typer.Option("--json", help="print JSON")]
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_LEFT = {Enforcement.NONE: "undone", Enforcement.PARTIAL: "partly left", Enforcement.FULL: "stays"}


def operator() -> str:
    """Who is at the keyboard, for records: the login name and uid, `sudo`'s caller where there is one."""
    uid = int(os.environ.get("SUDO_UID", os.getuid()))
    try:
        name = os.environ.get("SUDO_USER") or getpass.getuser()
    except (KeyError, OSError):
        name = "?"
    return f"operator:{name}({uid})"


def connect() -> CoreClient:
    """The core of this call's settings."""
    from clawback.enforcement.core.client import CoreClient

    return CoreClient(settings().core_socket)


def read_level(word: str) -> Level:
    """`InvalidInput` names the words there are."""
    try:
        return Level[word.upper()]
    except KeyError:
        words = ", ".join(level.word for level in Level)
        raise InvalidInput(f"--level: {word!r} is no level", hint=f"one of {words}") from None


@app.command()
def agents(
    *,
    tree: Annotated[bool, typer.Option("--tree", help="show who works for whom")] = False,
    as_json: _JSON = False,
) -> None:
    """List the agents of this host, and what holds each."""
    found = connect().agents()
    if as_json:
        print_json(found)
        return
    table(
        ("agent", "instance", "state", "hold", "by", "pid", "policy", "age", "command"),
        (
            (
                "  " * depth + info.agent,
                info.instance,
                info.state.value,
                "+".join(level.word for level in info.hold.levels) if info.hold else "-",
                _holders(info.hold),
                info.pid,
                f"{info.policy} v{info.policy_version}",
                f"{(time.time_ns() - info.started_ns) / 1e9:.0f} s",
                " ".join(info.command),
            )
            for depth, info in (_as_tree(found) if tree else ((0, info) for info in found))
        ),
        empty="no agents",
    )


def _holders(hold: Hold | None) -> str:
    if hold is None:
        return "-"
    names = dict.fromkeys(order.holder + (" (due)" if order.due else "") for order in hold.orders)
    return ", ".join(names) or hold.by


def _as_tree(found: Sequence[AgentInfo]) -> Iterator[tuple[int, AgentInfo]]:
    """Each agent after the one that it works for, and how deep; those whose parent is not known stand first."""
    known = {info.agent for info in found}
    below: dict[str, list[AgentInfo]] = {}
    for info in found:
        below.setdefault(info.parent if info.parent in known else "", []).append(info)
    stack = [(0, info) for info in reversed(below.get("", []))]
    while stack:
        depth, info = stack.pop()
        yield depth, info
        stack.extend((depth + 1, child) for child in reversed(below.get(info.agent, [])))


def print_results(results: Sequence[LevelResult], *, as_json: bool, released: bool = False) -> None:
    """One line each, and what is missing."""
    if as_json:
        print_json(results)
        return
    for result in results:
        word = _LEFT[result.enforcement] if released else result.enforcement.value
        console.print(f"{result.level.word:9} {word:13} {result.elapsed_ms:8.2f} ms  {safe(result.observed, 300)}")
        for missing in result.missing:
            console.print(f"{'':9} missing: {safe(missing, 300)}")


def read_duration(words: str) -> float:
    """Seconds of `90s`, `30m`, `8h` or `7d`; 0 of nothing."""
    if not words:
        return 0
    number, unit = words[:-1], words[-1:]
    if unit not in _UNITS or not (number.isascii() and number.isdigit()) or not int(number):
        raise InvalidInput(f"--for: {words!r} is no time", hint="such as 90s, 30m, 8h or 7d")
    return float(int(number) * _UNITS[unit])


@app.command()
def contain(
    agent: Annotated[str, typer.Argument(help="the agent's id")],
    level: Annotated[str, typer.Option("--level", help="freeze, isolate, restrict, seal or stop")],
    reason: Annotated[str, typer.Option("--reason", help="why; kept with the hold")],
    only: Annotated[bool, typer.Option("--only", help="this level alone, not those below it")] = False,
    review: Annotated[
        str, typer.Option("--for", help="report the hold as due after 90s, 30m, 8h, 7d; it is never lifted by itself")
    ] = "",
    incident: Annotated[
        str, typer.Option("--incident", help="the incident or case it belongs to; no other then lifts it")
    ] = "",
    allow: Annotated[
        list[str] | None,
        typer.Option(
            "--allow",
            help="ADDRESS:PORT of a responder that isolating leaves open, more than one by repeating it; or none",
        ),
    ] = None,
    readable: Annotated[
        list[str] | None,
        typer.Option(
            "--readable",
            help="path inside that restricting lets the agent open, more than one by repeating it; or none",
        ),
    ] = None,
    as_json: _JSON = False,
) -> None:
    """Quarantine an agent up to a level of the ladder, now. Needs only the core.

    A frozen agent reaches nobody: --allow and --readable count once freezing is released, or with --only. Many agents
    at once, or one with all that work for it: clawback halt tree AGENT. An order without them leaves them as ordered
    before by the same holder.
    """
    wanted = read_level(level)
    due = read_duration(review)
    # Stopping includes what is below it; sealing a tree that is about to be killed would only delay that.
    below = [step for step in Level if step < wanted and not (wanted is Level.STOP and step > Level.ISOLATE)]
    steps = [wanted] if only else [*below, wanted]
    for option, given, at in (("--allow", allow, Level.ISOLATE), ("--readable", readable, Level.RESTRICT)):
        if given and at not in steps:
            raise InvalidInput(f"{option}: {at.word} is no part of this order", hint=f"order it with --level {at.word}")
    core = connect()
    info = core.agent(agent)
    results: list[LevelResult] = []
    for step in steps:
        if step is Level.STOP:
            bundle = core.evidence(agent, incident=incident)
            sys.stderr.write(f"evidence: {bundle.folder} ({bundle.files} files, sha256 {bundle.sha256})\n")
        results.append(
            core.contain(
                agent,
                step,
                instance=info.instance,
                reason=reason,
                by=operator(),
                incident=incident,
                due_seconds=due,
                allow=_given(allow) if step is Level.ISOLATE else None,
                readable=_given(readable) if step is Level.RESTRICT else None,
            )
        )
    print_results(results, as_json=as_json)
    short = [result for result in results if result.enforcement is not Enforcement.FULL]
    if short:
        words = ", ".join(f"{result.level.word}: {result.enforcement}" for result in short)
        raise NotEnforced(f"{agent} is not fully contained ({words})", hint="clawback doctor says what this host lacks")


def _given(words: Sequence[str] | None) -> Sequence[str] | None:
    """None where nothing is to change."""
    return None if not words else () if list(words) == ["none"] else words


@app.command()
def release(
    agent: Annotated[str, typer.Argument(help="the agent's id")],
    reason: Annotated[str, typer.Option("--reason", help="why; kept in the record")],
    incident: Annotated[str, typer.Option("--incident", help="lift this incident's hold alone")] = "",
    everyone: Annotated[bool, typer.Option("--all", help="lift every holder's order on this agent")] = False,
    as_json: _JSON = False,
) -> None:
    """Lift an agent's hold and undo what can be undone; says what cannot.

    Where several hold it, what one lifts the others keep. A halt is lifted with clawback lift.
    """
    core = connect()
    results = core.release(agent, reason=reason, by=operator(), incident=incident, everyone=everyone)
    print_results(results, as_json=as_json, released=True)
    if (hold := core.agent(agent).hold) is not None:
        words = "+".join(level.word for level in hold.levels)
        raise NotEnforced(f"{agent} is still held ({words}) by {_holders(hold)}", hint="release or lift that too")
    left = [result.level.word for result in results if result.enforcement is not Enforcement.NONE]
    if left:
        raise NotEnforced(
            f"{agent}: {', '.join(left)} cannot be undone on these processes",
            hint="relaunch the agent with clawback run",
        )
