"""A worker for tests: the crash rehearsal's actions, each incident with files of its own.

    python fleet.py STATE JOURNAL_URL [--host NAME] [--hang-in STEP] [--prefect URL]

`--host` makes it another host's, so that its death shows by its lease alone. With `--hang-in`, the first time that this
step is applied the effect is made, `hangs` says whose it was, and nothing more happens until the process is killed.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import socket
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent / "crash"))

import rehearsal

from clawback import log
from clawback.config import Settings
from clawback.journal import Journal
from clawback.model import Incident, Phase
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
    arguments = parser.parse_args()
    log.configure()
    if arguments.host:
        socket.gethostname = lambda: arguments.host
    folder = arguments.state / "effects"
    folder.mkdir(exist_ok=True)
    for action in rehearsal.ACTIONS.values():
        object.__setattr__(action, "apply", hanging(action.apply, folder, arguments.hang_in))
    settings = Settings(state=arguments.state, journal_url=arguments.journal, prefect={"api_url": arguments.prefect})
    engine = Engine(
        Journal(arguments.journal), lambda: rehearsal.WORLD, {"rehearse": book(folder)}, actions=rehearsal.ACTIONS
    )
    asyncio.run(work(settings, engine))
    os._exit(0)  # as the responder does


def hanging(apply: Any, folder: Path, step: str) -> Any:
    def applied(context: Any, params: Any, captured: Any) -> Any:
        done = apply(context, params, captured)
        if step and params.name.endswith(f".{step}"):
            try:
                (folder / "hangs").touch(exist_ok=False)
            except FileExistsError:
                return done
            time.sleep(3600)
        return done

    return applied


if __name__ == "__main__":
    main()
