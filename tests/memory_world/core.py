"""A core: agents, holds, halts and what the kernel would enforce of them."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

from memory_world.orders import MemoryOrders
from memory_world.policies import MemoryPolicies
from memory_world.telemetry import MemoryTelemetry

from clawback.errors import InvalidInput, NotFound, Refused, Unreachable
from clawback.model import (
    AgentInfo,
    AgentState,
    Attempt,
    AttemptResult,
    Enforcement,
    EvidenceBundle,
    Halt,
    HaltedAgent,
    HaltReport,
    Hold,
    LaunchSpec,
    Level,
    LevelResult,
    Lifecycle,
    Order,
    Selector,
    SelectorKind,
    Source,
    Subject,
)

__all__ = ["MemoryCore"]


class MemoryCore:
    """One host. `enforced` is the truth about each agent; `lies` are levels that `contain` claims and does not make.
    `earlier` is instance → whether something of it is alive, of those that were replaced.
    """

    def __init__(self, folder: Path, policies: MemoryPolicies, secrets: Any) -> None:
        self.folder, self.policies, self.secrets = folder, policies, secrets
        self.orders: MemoryOrders | None = None
        self.telemetry = MemoryTelemetry()
        self.transcripts: list[str] = []
        self.known: dict[str, AgentInfo] = {}
        self.earlier: dict[str, bool] = {}
        self.enforced: dict[str, dict[Level, Enforcement]] = {}
        self.lies: set[Level] = set()
        self.observed: dict[Level, LevelResult] = {}
        self.open_calls: set[tuple[str, str]] = set()
        self.weaker_after_relaunch = False
        self.standing: dict[str, Halt] = {}
        self.unstoppable: set[str] = set()
        self.down = False
        self.calls: list[str] = []
        self.before_call: Callable[[str], None] | None = None

    def _ask(self, call: str) -> None:
        if self.down:
            raise Unreachable("the core does not answer")
        if self.before_call:
            self.before_call(call)
        self.calls.append(call)

    def agents(self) -> tuple[AgentInfo, ...]:
        self._ask("agents")
        return tuple(self.known.values())

    def agent(self, agent: str) -> AgentInfo:
        self._ask("agent")
        if agent not in self.known:
            raise NotFound(f"no agent {agent}")
        return self.known[agent]

    def launch(self, spec: LaunchSpec) -> AgentInfo:
        self._ask("launch")
        info = AgentInfo(
            agent=spec.agent,
            instance=f"i{len(self.known) + 1}",
            state=AgentState.RUNNING,
            pid=4242,
            command=spec.command,
            policy=spec.policy,
            policy_version=spec.policy_version,
            started_ns=time.time_ns(),
            layers={"network": Enforcement.FULL, "landlock": Enforcement.FULL},
            credentials=spec.credentials,
            tenant=spec.tenant,
            team=spec.team,
            tags=spec.tags,
            parent=spec.parent,
        )
        self.known[spec.agent] = info
        self.enforced[spec.agent] = {}
        return info

    def _result(self, agent: str, level: Level) -> LevelResult:
        if level in self.observed:
            return self.observed[level]
        found = self.enforced[agent].get(level, Enforcement.NONE)
        return LevelResult(level=level, enforcement=found, observed=f"{level.word} seen {found}", at_ns=time.time_ns())

    def contain(
        self, agent: str, level: Level, *, instance: str = "", reason: str, by: str, incident: str = ""
    ) -> LevelResult:
        self._ask(f"contain {level.word}")
        info = self.known[agent]
        if instance and instance != info.instance:
            raise Refused(f"{agent} is instance {info.instance}")
        orders = info.hold.orders if info.hold else ()
        before = next((one for one in orders if (one.incident or one.by) == (incident or by)), None)
        levels = tuple(sorted({*(before.levels if before else ()), level}))
        order = Order(levels=levels, reason=reason, by=by, incident=incident)
        self.known[agent] = replace(info, hold=Hold.of(agent, (*(one for one in orders if one is not before), order)))
        if level in self.lies:
            return LevelResult(level=level, enforcement=Enforcement.FULL, observed="done, believe me")
        self.enforced[agent][level] = Enforcement.FULL
        if level is Level.STOP:
            self.known[agent] = replace(self.known[agent], state=AgentState.EXITED, exit_status=-9)
        return self._result(agent, level)

    def probe(self, agent: str, level: Level, *, instance: str = "") -> LevelResult:
        self._ask(f"probe {level.word}")
        if instance in ("", self.known[agent].instance):
            return self._result(agent, level)
        if instance not in self.earlier:
            raise NotFound(f"no record of {instance}")
        if level is not Level.STOP:
            raise InvalidInput(f"{instance} is over")
        alive = self.earlier[instance]
        seen = Enforcement.NONE if alive else Enforcement.FULL
        return LevelResult(level=level, enforcement=seen, observed="1 process is alive" if alive else "none is left")

    def release(
        self, agent: str, *, levels: Sequence[Level] = (), reason: str, by: str, incident: str = ""
    ) -> tuple[LevelResult, ...]:
        self._ask("release")
        info = self.known[agent]
        orders = info.hold.orders if info.hold else ()
        mine = [one for one in orders if not incident or one.incident in ("", incident)]
        wanted = tuple(levels) or tuple(sorted({level for one in mine for level in one.levels}))
        after = [
            replace(one, levels=tuple(x for x in one.levels if x not in wanted)) if one in mine else one
            for one in orders
        ]
        hold = Hold.of(agent, tuple(one for one in after if one.levels))
        self.known[agent] = replace(info, hold=hold)
        for level in wanted:
            if level < Level.SEAL and level not in self.lies and level not in (hold.levels if hold else ()):
                self.enforced[agent].pop(level, None)
        return tuple(self._result(agent, level) for level in wanted)

    def relaunch(
        self, agent: str, *, policy_version: int, policy_text: str, reason: str, by: str, policy: str = ""
    ) -> AgentInfo:
        self._ask("relaunch")
        info = self.known[agent]
        if info.hold:
            raise Refused(f"{agent} is held")
        self.earlier[info.instance] = False
        layers = dict.fromkeys(info.layers, Enforcement.PARTIAL) if self.weaker_after_relaunch else info.layers
        self.known[agent] = replace(
            info,
            instance=info.instance + "r",
            state=AgentState.RUNNING,
            exit_status=None,
            policy=policy or info.policy,
            policy_version=policy_version,
            layers=layers,
            credentials=self.secrets.refs(agent),
        )
        self.enforced[agent] = {}
        self.telemetry.write(
            Lifecycle,
            component="sandbox",
            status="started",
            activity_id=Lifecycle.START,
            source=Source.SANDBOX,
            instance=self.known[agent].instance,
        )
        return self.known[agent]

    def attempt(self, agent: str, attempts: Sequence[Attempt]) -> tuple[AttemptResult, ...]:
        self._ask("attempt")
        results = tuple(self._tried(agent, x) for x in attempts)
        for result in results:
            if result.denied:
                self.telemetry.denied(self.known[agent], result.attempt)
        return results

    def _tried(self, agent: str, attempt: Attempt) -> AttemptResult:
        """By an order that is in force, else denied unless it is one of `open_calls`."""
        info = self.known[agent]
        subject = Subject(agent=agent, tenant=info.tenant, team=info.team, tags=info.tags)
        asks = self.orders if attempt.kind in ("connect", "http") else None
        said = asks.decide(info.policy, attempt, subject=subject) if asks else None
        if said is not None and said.orders:
            rules = " ".join(f"order:{order}" for order in said.orders)
            held = "it would be held" in said.reason
            detail = f"HTTP 100 Continue, by order {rules}" if held else f"HTTP 403 Forbidden, by order {rules}"
            return AttemptResult(attempt=attempt, denied=not held, detail=detail)
        return AttemptResult(
            attempt=attempt, denied=(attempt.kind, attempt.target) not in self.open_calls, detail="EACCES"
        )

    def evidence(self, agent: str, *, incident: str, transcripts: Sequence[str] = ()) -> EvidenceBundle:
        self._ask("evidence")
        folder = self.folder / (f"{incident}-transcripts" if transcripts else incident) / agent
        folder.mkdir(parents=True, exist_ok=True)
        for number, text in enumerate(self.transcripts if transcripts else (), start=1):
            (folder / f"transcript-{number:02}.jsonl").write_text(text)
        if transcripts:
            index = [{"shown": path.name} for path in sorted(folder.glob("transcript-*.jsonl"))]
            (folder / "transcripts.json").write_text(json.dumps(index))
        (folder / "processes.json").write_text("[]")
        (folder / "output.log").write_text("hello\n")
        files = [
            {"path": x.name, "sha256": sha256(x.read_bytes()).hexdigest(), "bytes": x.stat().st_size}
            for x in sorted(folder.glob("*.*"))
            if x.name != "manifest.json"
        ]
        manifest = folder / "manifest.json"
        subject = {"incident": incident, "agent": agent, "instance": self.known[agent].instance}
        manifest.write_text(json.dumps({**subject, "files": files}))
        return EvidenceBundle(
            folder=str(folder),
            manifest="manifest.json",
            sha256=sha256(manifest.read_bytes()).hexdigest(),
            files=len(files),
            bytes=sum(int(x["bytes"]) for x in files),
        )

    # Halts, as orders on each agent that they mean.

    def halt(self, selector: Selector, level: Level, *, reason: str, by: str, incident: str = "") -> HaltReport:
        self._ask("halt")
        number = f"HALT-{len(self.standing) + 1}"
        order = Order(levels=(level,), reason=reason, by=by, incident=incident, halt=number)
        halt = self.standing[number] = Halt(id=number, selector=selector, order=order)
        meant = [info for info in self.known.values() if self._means(selector, info)]
        for info in meant:
            orders = (*(info.hold.orders if info.hold else ()), order)
            self.known[info.agent] = replace(info, hold=Hold.of(info.agent, orders))
            if level not in self.lies and info.agent not in self.unstoppable:
                self.enforced[info.agent][level] = Enforcement.FULL
        return HaltReport(halt=halt, agents=tuple(HaltedAgent(agent=x.agent, instance=x.instance) for x in meant))

    def halts(self) -> tuple[Halt, ...]:
        self._ask("halts")
        return tuple(self.standing.values())

    def lift(self, halt: str, *, reason: str, by: str) -> tuple[HaltedAgent, ...]:
        self._ask("lift")
        gone = self.standing.pop(halt)
        for info in tuple(self.known.values()):
            orders = tuple(x for x in (info.hold.orders if info.hold else ()) if x.halt != halt)
            hold = Hold.of(info.agent, orders)
            self.known[info.agent] = replace(info, hold=hold)
            for level in gone.order.levels:
                if not hold or level not in hold.levels:
                    self.enforced[info.agent].pop(level, None)
        return ()

    def _means(self, selector: Selector, info: AgentInfo) -> bool:
        match selector.kind:
            case SelectorKind.ALL:
                return True
            case SelectorKind.TENANT:
                return info.tenant == selector.value
            case SelectorKind.TEAM:
                return info.team == selector.value
            case SelectorKind.TAG:
                return selector.value in info.tags
            case SelectorKind.TREE:
                return selector.value in (info.agent, info.parent)
