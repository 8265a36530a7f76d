"""A worker for tests: the crash rehearsal's actions, each incident with files of its own.

    python fleet.py STATE JOURNAL_URL [--host NAME] [--hang-in STEP] [--prefect URL] [--offer] [--approvals MODE]

`--host` makes it another host's, so that its death shows by its lease alone. With `--hang-in`, the first time that this
step is applied the effect is made, `hangs` appears, and nothing more happens until `go` does, or the process is killed.
With `--offer`, the playbook, a runbook and a drill can be launched in Prefect; every agent runs but `nobody`. With
`--approvals`, the last step waits for a person, who may answer in Prefect.
"""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import os
import socket
import sys
import time
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent / "crash"))

import rehearsal

from clawback import log
from clawback.catalog import Runbook
from clawback.config import Settings
from clawback.errors import NotFound
from clawback.journal import Journal
from clawback.model import AgentInfo, AgentState, Incident, Phase
from clawback.orchestrate.declared import declare
from clawback.orchestrate.engine import Engine
from clawback.orchestrate.process import work
from clawback.playbook import Respond, Step, playbook

STEPS = ("frozen", "rotated", "restored")


def book(folder: Path) -> Any:
    @playbook(id="rehearse", title="Rehearse", answers={"rehearsal"}, runbook="rehearse")
    def run(incident: Incident, respond: Respond) -> None:
        """Three steps, the last two side by side."""

        def mark(name: str) -> Any:
            return rehearsal.Mark(folder=folder, name=f"{incident.id}.{name}")

        with respond.phase(Phase.CONTAIN):
            frozen = respond(rehearsal.FREEZE, mark("frozen"))
        with respond.phase(Phase.ERADICATE):
            respond.together(
                Step(rehearsal.ROTATE, mark("rotated"), after=(frozen,)),
                Step(rehearsal.RESTORE, mark("restored"), after=(frozen,)),
            )

    return run


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("state", type=Path)
    parser.add_argument("journal")
    parser.add_argument("--host", default="")
    parser.add_argument("--hang-in", default="")
    parser.add_argument("--prefect", default=None)
    parser.add_argument("--offer", action="store_true")
    parser.add_argument("--approvals", default="")
    arguments = parser.parse_args()
    log.configure()
    if arguments.host:
        socket.gethostname = lambda: arguments.host
    folder = arguments.state / "effects"
    folder.mkdir(exist_ok=True)
    for action in rehearsal.ACTIONS.values():
        object.__setattr__(action, "apply", hanging(action.apply, folder, arguments.hang_in))
    approvals: dict[str, Any] = {"rules": [{"actions": ["*"], "quorum": 0}]}
    if arguments.approvals:
        approvals = {"prefect": arguments.approvals, "rules": [{"actions": ["mark.restore"], "quorum": 1}]}
    settings = Settings(
        state=arguments.state,
        journal_url=arguments.journal,
        prefect={"api_url": arguments.prefect},
        approvals=approvals,
    )
    books = {"rehearse": book(folder)}
    world = dataclasses.replace(rehearsal.WORLD, core=SimpleNamespace(agent=agent))
    engine = Engine(
        Journal(arguments.journal),
        lambda: world,
        books,
        actions=rehearsal.ACTIONS,
        approvals=settings.approvals,
    )
    declared: Any = ()
    if arguments.offer:
        from clawback.orchestrate import launches

        launches._FORGOTTEN = timedelta(0)
        declared = declare(books, {"rehearse-by-hand": RUNBOOK}, {"no-such-drill": "0 6 * * 1"})
    asyncio.run(work(settings, engine, declared))
    os._exit(0)  # as the responder does


RUNBOOK = Runbook(
    id="rehearse-by-hand",
    title="Rehearse",
    playbook="rehearse",
    detectors=(),
    drill="no-such-drill",
    text="## Meaning\n",
    path=Path("rehearse-by-hand.md"),
    facts={
        "parameters": {"AGENT": "whose", "LEVEL": {"description": "how far", "enum": ["low", "high"], "required": True}}
    },
)


def agent(name: str) -> AgentInfo:
    if name == "nobody":
        raise NotFound("no agent nobody")
    return AgentInfo(
        agent=name, instance=f"{name}-a", state=AgentState.RUNNING, pid=1, command=("x",), policy="p",
        policy_version=1, started_ns=1, tags=("drill",) if name.startswith("drilled") else (),
    )  # fmt: skip


def hanging(apply: Any, folder: Path, step: str) -> Any:
    def applied(context: Any, params: Any, captured: Any) -> Any:
        done = apply(context, params, captured)
        if step and params.name.endswith(f".{step}"):
            try:
                (folder / "hangs").touch(exist_ok=False)
            except FileExistsError:
                return done
            while not (folder / "go").exists():
                time.sleep(0.02)
        return done

    return applied


if __name__ == "__main__":
    main()
