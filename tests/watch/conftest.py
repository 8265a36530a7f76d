"""A core that keeps its agents in memory (the Protocol's words, for logic only), and short ways to write telemetry."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest

from clawback.errors import NotFound, Refused, Unreachable
from clawback.journal import Journal
from clawback.model import (
    AgentInfo,
    AgentState,
    Enforcement,
    Event,
    FileActivity,
    Finding,
    Hold,
    Level,
    LevelResult,
    Quarantine,
    Quarantining,
    Severity,
    Source,
)
from clawback.model.ocsf import encode
from clawback.world import Core, World

NOW_NS = 1_760_000_000_000_000_000


class MemoryCore:
    """Answers as `clawback.world.Core` says; `calls` are the containments in their order."""

    def __init__(self) -> None:
        self.known: dict[str, AgentInfo] = {}
        self.calls: list[tuple[str, Level]] = []
        self.struck: list[str] = []
        self.together: list[tuple[str, ...]] = []
        self.away = False

    def add(self, agent: str, instance: str = "", **changes: Any) -> AgentInfo:
        info = AgentInfo(
            agent=agent,
            instance=instance or f"{agent}-1",
            state=AgentState.RUNNING,
            pid=1,
            command=("x",),
            policy="p",
            policy_version=1,
            started_ns=1,
        )
        self.known[agent] = replace(info, **changes)
        return self.known[agent]

    def agents(self) -> tuple[AgentInfo, ...]:
        self._answer()
        return tuple(self.known.values())

    def agent(self, agent: str) -> AgentInfo:
        self._answer()
        if agent not in self.known:
            raise NotFound(f"no agent {agent}")
        return self.known[agent]

    def contain(
        self, agent: str, level: Level, *, instance: str = "", reason: str, by: str, incident: str = ""
    ) -> LevelResult:
        info = self.agent(agent)
        if instance and info.instance != instance:
            raise Refused("another instance")
        self.calls.append((agent, level))
        held = info.hold.levels if info.hold else ()
        hold = Hold(agent=agent, levels=tuple(sorted({*held, level})), reason=reason, by=by, incident=incident)
        self.known[agent] = replace(info, hold=hold)
        return self.probe(agent, level)

    def probe(self, agent: str, level: Level, *, instance: str = "") -> LevelResult:
        info = self.agent(agent)
        held = info.hold is not None and level in info.hold.levels
        return LevelResult(
            level=level,
            enforcement=Enforcement.FULL if held else Enforcement.NONE,
            observed="1 of 1 processes stopped" if held else "runs",
            at_ns=time.time_ns(),
        )

    def quarantine(
        self, agent: str, levels: Sequence[Level], *, instance: str = "", reason: str, by: str, incident: str = ""
    ) -> Quarantine:
        applied = tuple(
            self.contain(agent, level, instance=instance, reason=reason, by=by, incident=incident) for level in levels
        )
        return Quarantine(
            agent=self.agent(agent), applied=applied, seen=tuple(self.probe(agent, level) for level in levels)
        )

    def quarantine_many(self, orders: Sequence[Quarantining], *, by: str) -> tuple[Quarantine, ...]:
        self.together.append(tuple(one.agent for one in orders))
        return tuple(
            self.quarantine(
                one.agent, one.levels, instance=one.instance, reason=one.reason, by=by, incident=one.incident
            )
            for one in orders
            if one.agent in self.known and self.known[one.agent].instance == one.instance
        )

    def strike(self, agents: Mapping[str, str], *, drills: bool = False) -> tuple[AgentInfo, ...]:
        self._answer()
        known = {agent: self.known[agent] for agent in agents if agent in self.known}
        struck = [
            agent
            for agent, info in known.items()
            if info.instance == agents[agent] and (drills or "drill" not in info.tags)
        ]
        self.struck += struck
        return tuple(self.known[agent] for agent in struck)

    def held(self, agent: str) -> set[Level]:
        hold = self.known[agent].hold
        return set(hold.levels) if hold else set()

    def _answer(self) -> None:
        if self.away:
            raise Unreachable("the core does not answer")


@pytest.fixture
def core() -> MemoryCore:
    return MemoryCore()


@pytest.fixture
def world(core: MemoryCore) -> World:
    absent = cast("Any", None)
    return World(core=cast("Core", core), policies=absent, secrets=absent, tickets=absent)


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    opened = Journal(f"sqlite:///{tmp_path / 'journal.db'}")
    yield opened
    opened.dispose()


def finding(**changes: Any) -> Finding:
    known: dict[str, Any] = {
        "detector": "secrets.outside-allow-list",
        "agent": "support",
        "instance": "support-1",
        "severity": Severity.CRITICAL,
        "technique": "T1552",
        "resource": "/etc/shadow",
        "policy": "p",
        "policy_version": 1,
        "title": "t",
        "summary": "s",
        "time_ns": time.time_ns(),
        "events": ("sandbox/w/1",),
        "reflex": Level.ISOLATE,
        "attempts": (("open", "/etc/shadow"),),
    }
    return Finding(**(known | changes))


def canary(sequence: int = 1, **changes: Any) -> Event:
    known: dict[str, Any] = {
        "time_ns": time.time_ns(),
        "writer": "w",
        "sequence": sequence,
        "source": Source.SANDBOX,
        "agent": "support",
        "instance": "support-1",
        "activity_id": FileActivity.OPEN,
        "path": "/root/.aws/credentials",
        "access": "canary",
    }
    return FileActivity(**(known | changes))


def harmless(sequence: int = 1, **changes: Any) -> Event:
    return canary(sequence, **({"path": "/tmp/x", "access": "read"} | changes))


def append(path: Path, *events: Event | bytes) -> None:
    with path.open("ab") as file:
        for event in events:
            file.write(event if isinstance(event, bytes) else encode(event))


def eventually(condition: Callable[[], Any], seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "never came true"
        time.sleep(0.002)


@pytest.fixture
def tools() -> Any:
    """The functions above, for tests that cannot import a conftest by name."""

    class Tools:
        pass

    for function in (finding, canary, harmless, append, eventually):
        setattr(Tools, function.__name__, staticmethod(function))
    return Tools
