"""`run`, `agents`, `contain`, `release`: agents, by way of the core alone."""

from __future__ import annotations

import getpass
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from clawback.cli.app import app, settings
from clawback.cli.output import console, print_json, safe, table
from clawback.errors import ClawbackError, InvalidInput, NotEnforced, Unreachable
from clawback.model import Enforcement, LaunchSpec, Level, LevelResult

if TYPE_CHECKING:
    from clawback.enforcement.core.client import CoreClient

__all__ = ["operator"]

_JSON = Annotated[bool, typer.Option("--json", help="print JSON")]
_CANNOT_START = 125
_LEFT = {Enforcement.NONE: "undone", Enforcement.PARTIAL: "partly left", Enforcement.FULL: "stays"}


def operator() -> str:
    """Who is at the keyboard, for records: the login name and uid, `sudo`'s caller where there is one."""
    uid = int(os.environ.get("SUDO_UID", os.getuid()))
    try:
        name = os.environ.get("SUDO_USER") or getpass.getuser()
    except (KeyError, OSError):
        name = "?"
    return f"operator:{name}({uid})"


def _core() -> CoreClient:
    from clawback.enforcement.core.client import CoreClient

    return CoreClient(settings().core_socket)


def _level(word: str) -> Level:
    try:
        return Level[word.upper()]
    except KeyError:
        words = ", ".join(level.word for level in Level)
        raise InvalidInput(f"--level: {word!r} is no level", hint=f"one of {words}") from None


@app.command(context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
def run(
    command: Annotated[list[str], typer.Argument(help="the program and its arguments, after --", metavar="-- CMD...")],
    policy: Annotated[Path, typer.Option("--policy", help="policy file")],
    agent: Annotated[
        str | None, typer.Option("--agent", help="stable id; default: made from the program's name")
    ] = None,
    env: Annotated[list[str] | None, typer.Option("--env", help="NAME=VALUE to pass on; never a secret")] = None,
    workdir: Annotated[Path | None, typer.Option("--workdir", help="folder to show and start in, read-only")] = None,
) -> None:
    """Run a program as an agent, in a sandbox, and end with its exit status."""
    status = _run(command, policy, agent, env or [], workdir)
    raise typer.Exit(status)


def _run(command: list[str], policy: Path, agent: str | None, env: list[str], workdir: Path | None) -> int:
    from clawback.enforcement.gateway.client import GatewayClient

    chosen = settings()
    try:
        text = policy.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInput(f"{policy}: {error}", hint="--policy names a readable policy file") from None
    _check(text, policy)
    environment = dict(_pair(item) for item in env)
    version = 0
    try:
        version = (
            GatewayClient(chosen.gateway_socket)
            .put(policy.stem, text, author=operator(), reason="clawback run")
            .version
        )
    except Unreachable:
        sys.stderr.write("warning: the gateway does not answer; the agent starts with no way out\n")
    core = _core()
    try:
        started = core.launch(
            LaunchSpec(
                agent=agent or _agent_id(command[0]),
                command=tuple(command),
                policy=policy.stem,
                policy_version=version,
                policy_text=text,
                environment=environment,
                workdir=str(workdir.resolve()) if workdir else "/",
                readable=(str(workdir.resolve()),) if workdir else (),
            ),
            stdio=(0, 1, 2),
        )
    except ClawbackError as error:
        if isinstance(error, Unreachable):
            raise
        sys.stderr.write(f"error: {error.message}\n" + (f"hint: {error.hint}\n" if error.hint else ""))
        return _CANNOT_START
    status = core.wait(started.agent, instance=started.instance)
    return 128 - status if status < 0 else status


def _check(text: str, path: Path) -> None:
    from clawback.enforcement.policy.loader import load

    load(text, where=str(path))


def _pair(item: str) -> tuple[str, str]:
    name, mark, value = item.partition("=")
    if not mark or not name:
        raise InvalidInput(f"--env {name!r}: no value", hint="--env NAME=VALUE")
    return name, value


def _agent_id(program: str) -> str:
    stem = "".join(c if c.isascii() and c.isalnum() else "-" for c in Path(program).name.lower()).strip("-")
    return f"{stem[:40] or 'agent'}-{os.urandom(3).hex()}"


@app.command()
def agents(*, as_json: _JSON = False) -> None:
    """List the agents of this host."""
    found = _core().agents()
    if as_json:
        print_json(found)
        return
    table(
        ("agent", "instance", "state", "hold", "pid", "policy", "age", "command"),
        (
            (
                info.agent,
                info.instance,
                info.state.value,
                "+".join(level.word for level in info.hold.levels) if info.hold else "-",
                info.pid,
                f"{info.policy} v{info.policy_version}",
                f"{(time.time_ns() - info.started_ns) / 1e9:.0f} s",
                " ".join(info.command),
            )
            for info in found
        ),
        empty="no agents",
    )


def _print_results(results: tuple[LevelResult, ...], *, as_json: bool, released: bool = False) -> None:
    if as_json:
        print_json(results)
        return
    for result in results:
        word = _LEFT[result.enforcement] if released else result.enforcement.value
        console.print(f"{result.level.word:9} {word:13} {result.elapsed_ms:8.2f} ms  {safe(result.observed, 300)}")
        for missing in result.missing:
            console.print(f"{'':9} missing: {safe(missing, 300)}")


@app.command()
def contain(
    agent: Annotated[str, typer.Argument(help="the agent's id")],
    level: Annotated[str, typer.Option("--level", help="freeze, isolate, restrict, seal or stop")],
    reason: Annotated[str, typer.Option("--reason", help="why; kept with the hold")],
    only: Annotated[bool, typer.Option("--only", help="this level alone, not those below it")] = False,
    as_json: _JSON = False,
) -> None:
    """Quarantine an agent up to a level of the ladder, now. Needs only the core."""
    wanted = _level(level)
    core = _core()
    info = core.agent(agent)
    # Stopping includes what is below it; sealing a tree that is about to be killed would only delay that.
    below = [step for step in Level if step < wanted and not (wanted is Level.STOP and step > Level.ISOLATE)]
    steps = [wanted] if only else [*below, wanted]
    results: list[LevelResult] = []
    for step in steps:
        if step is Level.STOP:
            bundle = core.evidence(agent, incident="")
            sys.stderr.write(f"evidence: {bundle.folder} ({bundle.files} files, sha256 {bundle.sha256})\n")
        results.append(core.contain(agent, step, instance=info.instance, reason=reason, by=operator()))
    _print_results(tuple(results), as_json=as_json)
    short = [result for result in results if result.enforcement is not Enforcement.FULL]
    if short:
        words = ", ".join(f"{result.level.word}: {result.enforcement}" for result in short)
        raise NotEnforced(f"{agent} is not fully contained ({words})", hint="clawback doctor says what this host lacks")


@app.command()
def release(
    agent: Annotated[str, typer.Argument(help="the agent's id")],
    reason: Annotated[str, typer.Option("--reason", help="why; kept in the record")],
    as_json: _JSON = False,
) -> None:
    """Lift an agent's hold and undo what can be undone; says what cannot."""
    results = _core().release(agent, reason=reason, by=operator())
    _print_results(results, as_json=as_json, released=True)
    left = [result.level.word for result in results if result.enforcement is not Enforcement.NONE]
    if left:
        raise NotEnforced(
            f"{agent}: {', '.join(left)} cannot be undone on these processes",
            hint="relaunch the agent with clawback run",
        )
