"""`run`: a program as an agent, in the foreground."""

from __future__ import annotations

import os
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from clawback.cli.agents import connect, operator
from clawback.cli.app import app, settings
from clawback.cli.secrets import read_credential
from clawback.errors import ClawbackError, InvalidInput, NotFound, Refused, Unreachable
from clawback.model import AgentInfo, LaunchSpec

if TYPE_CHECKING:
    from clawback.enforcement.core.client import CoreClient

__all__: list[str] = []

_CANNOT_START = 125
_RETRY_SECONDS = 0.2


@app.command(context_settings={"allow_interspersed_args": False})
def run(
    command: Annotated[list[str], typer.Argument(help="the program and its arguments, after --", metavar="-- CMD...")],
    policy: Annotated[Path, typer.Option("--policy", help="policy file")],
    agent: Annotated[
        str | None, typer.Option("--agent", help="stable id; default: made from the program's name")
    ] = None,
    env: Annotated[list[str] | None, typer.Option("--env", help="NAME=VALUE to pass on; never a secret")] = None,
    workdir: Annotated[Path | None, typer.Option("--workdir", help="folder to show and start in, read-only")] = None,
    tenant: Annotated[str, typer.Option("--tenant", help="whose agent it is; halts go by it")] = "",
    team: Annotated[str, typer.Option("--team", help="which team's; halts go by it")] = "",
    tag: Annotated[list[str] | None, typer.Option("--tag", help="K=V, any number of them; halts go by them")] = None,
    parent: Annotated[str, typer.Option("--parent", help="id of the agent that this one works for")] = "",
    credential: Annotated[
        list[str] | None,
        typer.Option(
            "--credential",
            help="NAME: a stored value, as /run/secrets/NAME; NAME:placeholder:VARIABLE:HOST,HOST: the agent has a "
            "placeholder there and in the variable, and the gateway puts the value in its place on the way to these",
        ),
    ] = None,
) -> None:
    """Run a program as an agent, in a sandbox, and end with its exit status.

    The agent lives on if this command or the core is killed; a core that comes back is waited for. Credentials are
    stored beforehand: clawback secret put AGENT NAME.
    """
    credentials = tuple(read_credential(item) for item in credential or [])
    if credentials and agent is None:
        raise InvalidInput("--credential: without --agent", hint="values are stored by agent: say which one it is")
    text = _read(policy)
    spec = LaunchSpec(
        agent=agent or _agent_id(command[0]),
        command=tuple(command),
        policy=policy.stem,
        policy_version=0,
        policy_text=text,
        environment=dict(_pair(item, "--env") for item in env or []),
        workdir=str(workdir.resolve()) if workdir else "/",
        readable=(str(workdir.resolve()),) if workdir else (),
        tenant=tenant,
        team=team,
        tags=tuple("=".join(_pair(item, "--tag")) for item in tag or []),
        parent=parent,
        credentials=credentials,
        request_id=os.urandom(16).hex(),
    )
    core = connect()
    core.health()  # before anything is published for an agent that nobody starts
    raise typer.Exit(_run(core, replace(spec, policy_version=_publish(policy.stem, text))))


def _read(policy: Path) -> str:
    from clawback.enforcement.policy.loader import load

    try:
        text = policy.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInput(f"{policy}: {error}", hint="--policy names a readable policy file") from None
    load(text, where=str(policy))
    return text


def _publish(policy: str, text: str) -> int:
    """The version that the gateway decides by from now on; 0 where there is no gateway."""
    from clawback.enforcement.gateway.client import GatewayClient

    try:
        client = GatewayClient(settings().gateway_socket)
        return client.put(policy, text, author=operator(), reason="clawback run").version
    except Unreachable:
        sys.stderr.write("warning: the gateway does not answer; the agent starts with no way out\n")
        return 0


def _run(core: CoreClient, spec: LaunchSpec) -> int:
    try:
        try:
            started = core.launch(spec, stdio=(0, 1, 2))
        except Unreachable:
            sys.stderr.write(f"warning: the core did not answer as {spec.agent} was being started; looking for it\n")
            started = _found_started(core, spec)
    except ClawbackError as error:
        sys.stderr.write(f"error: {error.message}\n" + (f"hint: {error.hint}\n" if error.hint else ""))
        return _CANNOT_START
    status = _wait(core, started)
    return 128 - status if status < 0 else status


def _found_started(core: CoreClient, spec: LaunchSpec) -> AgentInfo:
    """The agent, if it was started before the core stopped answering: it lives on. `Refused` if there is none, or one
    that is another's.
    """
    while True:
        try:
            info = core.agent(spec.agent)
        except Unreachable:
            time.sleep(_RETRY_SECONDS)
            continue
        except NotFound:
            info = None
        if info is None or info.request_id != spec.request_id:
            raise Refused(
                f"the core did not say that it started {spec.agent}, and knows of no such start now",
                hint="where the core hung, it may still come: clawback agents shows who runs",
            )
        return info


def _wait(core: CoreClient, started: AgentInfo) -> int:
    """The agent's own status, however often the core goes away meanwhile: the agent outlives it."""
    told = False
    while True:
        try:
            return core.wait(started.agent, instance=started.instance)
        except Unreachable:
            if not told:
                sys.stderr.write(f"warning: the core went away; {started.agent} lives on; waiting for the core\n")
                told = True
            time.sleep(_RETRY_SECONDS)


def _pair(item: str, option: str) -> tuple[str, str]:
    name, mark, value = item.partition("=")
    if not mark or not name:
        raise InvalidInput(f"{option} {name!r}: no value", hint=f"{option} NAME=VALUE")
    return name, value


def _agent_id(program: str) -> str:
    stem = "".join(c if c.isascii() and c.isalnum() else "-" for c in Path(program).name.lower()).strip("-")
    return f"{stem[:40] or 'agent'}-{os.urandom(3).hex()}"
