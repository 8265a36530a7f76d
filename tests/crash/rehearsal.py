"""Actions with real effects on files, a playbook of them, and a process that kills itself at a chosen journal write.

    python rehearsal.py STATE [--die N --when before|after] [--together] [--revert | --undo] [--prefect [--kill PID]]

Every effect is a file made with O_EXCL, so a doubled effect is an error that shows; every call of apply and revert is a
line in `calls`, so that one which was not needed shows too.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import Connection

from clawback.action import Action, Context, Params, Plan, Reversibility, Verification
from clawback.config import Settings
from clawback.journal import Journal
from clawback.model import Enforcement, Finding, Incident, Level, Phase, Severity
from clawback.playbook import Respond, Step, playbook
from clawback.response import Responder, Response, run_playbook, undo
from clawback.world import World

WORLD = World(core=None, policies=None, secrets=None, tickets=None)  # type: ignore[arg-type]  # these actions reach files


class Mark(Params):
    folder: Path
    name: str


def _call(params: Mark, what: str) -> None:
    with (params.folder / "calls").open("a") as file:
        file.write(f"{what} {params.name}\n")


def _captured(_context: Context, params: Mark) -> dict[str, Any]:
    return {"existed": (params.folder / params.name).exists()}


def _apply(_context: Context, params: Mark, _captured: Any) -> dict[str, Any]:
    _call(params, "apply")
    if not (params.folder / params.name).exists():
        os.close(os.open(params.folder / params.name, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
        _call(params, "effect")
    return {"made": params.name}


def _verify(_context: Context, params: Mark, _captured: Any, _outcome: Any) -> Verification:
    seen = (params.folder / params.name).exists()
    return Verification(
        verified=seen, enforcement=Enforcement.FULL if seen else Enforcement.NONE, proof=f"stat: {seen}"
    )


def _revert(_context: Context, params: Mark, captured: Any) -> None:
    _call(params, "revert")
    if not captured["existed"]:
        (params.folder / params.name).unlink(missing_ok=True)


def _verify_reverted(_context: Context, params: Mark, captured: Any) -> Verification:
    there = (params.folder / params.name).exists()
    return Verification(verified=there == captured["existed"], enforcement=Enforcement.FULL, proof=f"stat: {there}")


def mark(verb: str, phase: Phase) -> Action[Mark]:
    return Action(
        id=f"mark.{verb}",
        summary="Make a file.",
        phase=phase,
        reversibility=Reversibility.REVERSIBLE,
        needs=frozenset({"files:write"}),
        scope="one file",
        openc2="create",
        params=Mark,
        key=lambda params: params.name,
        plan=lambda _context, params: Plan(changes=(f"+ {params.name}",)),
        capture=_captured,
        apply=_apply,
        verify=_verify,
        revert=_revert,
        verify_reverted=_verify_reverted,
    )


FREEZE = mark("freeze", Phase.CONTAIN)
ROTATE = mark("rotate", Phase.ERADICATE)
RESTORE = mark("restore", Phase.RECOVER)
ACTIONS = {action.id: action for action in (FREEZE, ROTATE, RESTORE)}
NAMES = ("frozen", "rotated", "restored")
FOLDER: list[Path] = []
TOGETHER: list[bool] = [False]


@playbook(id="rehearse", title="Rehearse", answers={"rehearsal"}, runbook="rehearse")
def REHEARSE(incident: Incident, respond: Respond) -> None:  # noqa: N802 - a unit
    """Three steps, each after the one before, or the last two side by side."""
    folder = FOLDER[0]
    with respond.phase(Phase.CONTAIN):
        frozen = respond(FREEZE, Mark(folder=folder, name="frozen"))
    if TOGETHER[0]:
        with respond.phase(Phase.ERADICATE):
            respond.together(
                Step(ROTATE, Mark(folder=folder, name="rotated"), after=(frozen,)),
                Step(RESTORE, Mark(folder=folder, name="restored"), after=(frozen,)),
            )
        return
    with respond.phase(Phase.ERADICATE):
        rotated = respond(ROTATE, Mark(folder=folder, name="rotated"), after=(frozen,))
    with respond.phase(Phase.RECOVER):
        respond(RESTORE, Mark(folder=folder, name="restored"), after=(rotated,))


FINDING = Finding(
    detector="rehearsal",
    agent="agent-1",
    instance="agent-1-a",
    severity=Severity.HIGH,
    technique="T0001",
    resource="/secret",
    policy="p",
    policy_version=1,
    title="rehearsal",
    summary="a rehearsal",
    time_ns=1,
    events=("sandbox/w/1",),
    reflex=Level.FREEZE,
)


class Mortal(Journal):
    """Kills its process with SIGKILL at the nth write: before it begins, or after it is durable, or would be were it
    not part of another.
    """

    def __init__(self, url: str, die: int, when: str) -> None:
        self._left = die
        self._counting = threading.Lock()
        self._when = when
        super().__init__(url)

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        with self._counting:
            self._left -= 1
            left = self._left
        if left == 0 and self._when == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        with super().writing() as connection:
            yield connection
        if left == 0 and self._when == "after":
            os.kill(os.getpid(), signal.SIGKILL)


def main(given: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("state", type=Path)
    parser.add_argument("--die", type=int, default=0)
    parser.add_argument("--when", default="after")
    parser.add_argument("--together", action="store_true")
    parser.add_argument("--revert", action="store_true")
    parser.add_argument("--undo", action="store_true")
    parser.add_argument("--prefect", action="store_true")
    parser.add_argument(
        "--kill", type=int, default=0, help="kill this process, Prefect's server, within the first step"
    )
    arguments = parser.parse_args(given)
    FOLDER[:] = [arguments.state / "effects"]
    TOGETHER[:] = [arguments.together]
    FOLDER[0].mkdir(parents=True, exist_ok=True)
    url = f"sqlite:///{arguments.state / 'journal.db'}"
    journal = Mortal(url, arguments.die, arguments.when)
    incident, _ = journal.open_or_join(FINDING, playbook="rehearse")
    if arguments.prefect:
        asyncio.run(_with_prefect(arguments, journal, incident.id))
    elif arguments.revert:
        response = Response(journal, WORLD, "rehearsal", incident.id, actions=ACTIONS)
        for receipt in reversed(journal.incident(incident.id).receipts):
            response.revert(receipt)
    elif arguments.undo:
        for _ in undo(Response(journal, WORLD, "rehearsal", incident.id, actions=ACTIONS), "rehearsed"):
            pass
    else:
        with journal.lock(incident.agent):
            run_playbook(REHEARSE, Responder(Response(journal, WORLD, "rehearsal", incident.id, actions=ACTIONS)))


async def _with_prefect(arguments: argparse.Namespace, journal: Journal, incident: str) -> None:
    from clawback.orchestrate.engine import Engine
    from clawback.orchestrate.link import Link

    engine = Engine(journal, lambda: WORLD, {"rehearse": REHEARSE}, actions=ACTIONS)
    link = Link(Settings(state=arguments.state), engine)
    usable = await link.look()
    if arguments.kill:
        original = FREEZE.verify

        def kill_then_verify(*given: Any) -> Verification:
            os.kill(arguments.kill, signal.SIGKILL)
            return original(*given)

        object.__setattr__(FREEZE, "verify", kill_then_verify)
    end = await engine.run(incident)
    print(
        json.dumps(
            {
                "usable": usable,
                "end": end.orchestration,
                "status": end.status,
                "ms": end.elapsed_ms,
                "first": end.first_line_ms,
                "error": end.error,
            }
        ),
        flush=True,
    )
    await link.close()
    os._exit(0)  # as the responder does


if __name__ == "__main__":
    main()
