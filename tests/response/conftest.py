"""A world of switches that actions turn, which can be away, refuse, lie or break, and counts what is done to it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from clawback.action import Action, Params, Plan, Reversibility, Verification
from clawback.errors import NotFound, Refused, Unreachable
from clawback.journal import Journal
from clawback.model import Enforcement, Finding, Incident, Phase, Severity
from clawback.response import Response
from clawback.world import World

FINDING = Finding(
    detector="d",
    agent="agent-1",
    instance="agent-1-a",
    severity=Severity.HIGH,
    technique="T",
    resource="/r",
    policy="p",
    policy_version=1,
    title="t",
    summary="s",
    time_ns=1,
    events=("e",),
)


class Killed(BaseException):
    """The process ends here."""


class Switches:
    """`on` is the state of the world. `trouble` is raised, once, by the function of that name."""

    def __init__(self) -> None:
        self.on: set[str] = set()
        self.done: Counter[str] = Counter()
        self.trouble: dict[str, BaseException] = {}
        self.after: dict[str, BaseException] = {}
        self.blind = False
        self.mute = False

    def hit(self, what: str) -> None:
        self.done[what] += 1
        if problem := self.trouble.pop(what, None):
            raise problem

    def missed(self, what: str) -> None:
        if problem := self.after.pop(what, None):
            raise problem


class Name(Params):
    name: str
    note: str = ""


def switch(world: Switches, **changes: Any) -> Action[Name]:
    def capture(_context: Any, params: Name) -> dict[str, Any]:
        world.hit("capture")
        return {"was": params.name in world.on}

    def apply(_context: Any, params: Name, captured: Any) -> dict[str, Any]:
        world.hit("apply")
        if params.name not in world.on:
            world.on.add(params.name)
            world.done["effect"] += 1
        world.missed("apply")
        return {"was": "overwritten"}

    def verify(_context: Any, params: Name, _captured: Any, _outcome: Any) -> Verification:
        world.hit("verify")
        seen = params.name in world.on and not world.blind
        return Verification(
            verified=seen,
            enforcement=Enforcement.FULL if seen else Enforcement.NONE,
            proof="" if world.mute else "looked",
        )

    def revert(_context: Any, params: Name, captured: Any) -> None:
        world.hit("revert")
        if captured["was"] is False:
            world.on.discard(params.name)
        world.missed("revert")

    def verify_reverted(_context: Any, params: Name, captured: Any) -> Verification:
        world.hit("verify_reverted")
        seen = (params.name in world.on) == captured["was"] and not world.blind
        return Verification(verified=seen, enforcement=Enforcement.FULL, proof="looked")

    declared: dict[str, Any] = {
        "id": "switch.on",
        "summary": "Switch on.",
        "phase": Phase.CONTAIN,
        "reversibility": Reversibility.REVERSIBLE,
        "needs": frozenset({"switch:on"}),
        "scope": "one switch",
        "openc2": "set",
        "params": Name,
        "key": lambda params: params.name,
        "plan": lambda _context, params: Plan(changes=(f"+ {params.name}",)),
        "capture": capture,
        "apply": apply,
        "verify": verify,
        "revert": revert,
        "verify_reverted": verify_reverted,
    }
    return Action(**(declared | changes))


@pytest.fixture
def outside() -> Switches:
    return Switches()


@pytest.fixture
def action(outside: Switches) -> Action[Name]:
    return switch(outside)


@pytest.fixture
def make(outside: Switches) -> Any:
    """Declares a variant: `make(id="x.y", needs=…)`."""
    return lambda **changes: switch(outside, **changes)


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    opened = Journal(f"sqlite:///{tmp_path / 'journal.db'}")
    yield opened
    opened.dispose()


@pytest.fixture
def incident(journal: Journal) -> Incident:
    return journal.open_or_join(FINDING, playbook="book")[0]


@pytest.fixture
def response(journal: Journal, incident: Incident, action: Action[Name]) -> Response:
    world = World(core=None, policies=None, secrets=None, tickets=None)  # type: ignore[arg-type]  # not reached
    return Response(journal, world, "test", incident.id, actions={action.id: action})


@pytest.fixture
def params() -> Name:
    return Name(name="lamp")


@pytest.fixture
def errors() -> dict[str, type[BaseException]]:
    return {"away": Unreachable, "refused": Refused, "gone": NotFound, "killed": Killed}
