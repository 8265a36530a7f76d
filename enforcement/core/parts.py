"""What the rooms of the core share: the agents, their holds and records, the spawner, telemetry and the gateway."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path

from clawback.enforcement.core.entry import Entry
from clawback.enforcement.core.gateway_link import GatewayLink
from clawback.enforcement.core.halts import Halts
from clawback.enforcement.core.holds import Holds
from clawback.enforcement.core.metrics import Metrics
from clawback.enforcement.core.rules import ReleaseRules
from clawback.enforcement.core.specs import Specs, check_name
from clawback.enforcement.sandbox import inventory
from clawback.enforcement.sandbox.record import Sandbox
from clawback.enforcement.sandbox.spawner import Spawner
from clawback.enforcement.supervise.link import SupervisorLink
from clawback.enforcement.telemetry.sandbox import SandboxTelemetry
from clawback.errors import InvalidInput, NotFound, Refused
from clawback.model import AgentInfo, Halt, Hold, LaunchSpec, Lifecycle, Order, Selector, SelectorKind, Severity

__all__ = ["CoreParameters", "Parts"]

_DEEPEST = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class CoreParameters:
    """What `clawback.yaml` says under `core:`, and where the state is. `order_seconds`: how long the core waits for the
    order of an agent that was frozen ahead of it; a storm of a thousand agents is ordered in half of the default.
    """

    state: Path
    cgroup: str = "clawback"
    uid_base: int = 1_900_000
    canaries: tuple[str, ...] = ()
    landlock_audit: bool = False
    trace: str = "denials"
    bound_audit_wait: bool = True
    heartbeat_seconds: float = 5.0
    verify_seconds: float = 5.0
    escalation_seconds: float = 60.0
    order_seconds: float = 30.0
    release: ReleaseRules = field(default_factory=ReleaseRules)


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """`entries` is agent → its latest instance. `slow` is agent → the lock of whatever changes it and may take long;
    `orders` guards the moment in which a hold and its counter change together.
    """

    parameters: CoreParameters
    holds: Holds
    halts: Halts
    specs: Specs
    telemetry: SandboxTelemetry
    metrics: Metrics
    link: GatewayLink
    supervision: SupervisorLink
    spawner: Spawner
    entries: dict[str, Entry] = field(default_factory=dict)
    slow: defaultdict[str, threading.RLock] = field(default_factory=lambda: defaultdict(threading.RLock))
    orders: threading.Lock = field(default_factory=threading.Lock)

    def agents(self) -> tuple[AgentInfo, ...]:
        """All agents, running or not."""
        return tuple(entry.info(self.hold(name)) for name, entry in sorted(self.entries.copy().items()))

    def agent(self, agent: str) -> AgentInfo:
        """One of them. `NotFound`."""
        return self.entry(agent).info(self.hold(agent))

    def hold(self, agent: str, spec: LaunchSpec | None = None) -> Hold | None:
        """Every order that holds the agent now: its own and those of the halts that match it, by `spec` where it has
        not been started yet.
        """
        own = self.holds.get(agent)
        entry = self.entries.get(agent)
        if spec is None and entry is not None:
            spec = entry.spec
        known = spec is not None or entry is not None
        halted = [halt.order for halt in self.halts.all() if known and self.matches(halt.selector, agent, spec)]
        return Hold.of(agent, (*(own.orders if own else ()), *halted))

    def held(self, agent: str) -> bool:
        """Whether `hold` has one."""
        return agent in self.holds or (bool(self.halts.all()) and self.hold(agent) is not None)

    def matches(self, selector: Selector, agent: str, spec: LaunchSpec | None) -> bool:
        """Whether it means this agent. An agent whose launch record is lost is meant by every selector."""
        if selector.kind is SelectorKind.ALL or spec is None:
            return True
        match selector.kind:
            case SelectorKind.TENANT:
                return spec.tenant == selector.value
            case SelectorKind.TEAM:
                return spec.team == selector.value
            case SelectorKind.TAG:
                return selector.value in spec.tags
            case SelectorKind.TREE:
                return selector.value in (agent, *self.ancestors(spec))

    def halted(self, halt: Halt) -> tuple[Entry, ...]:
        """The agents that run and that it means."""
        entries = self.entries.copy().items()
        return tuple(one for name, one in entries if one.running and self.matches(halt.selector, name, one.spec))

    def ancestors(self, spec: LaunchSpec) -> tuple[str, ...]:
        """For whom an agent works, and for whom that one does: nearest first, at most 64."""
        found: list[str] = []
        while spec.parent and spec.parent not in found and len(found) < _DEEPEST:
            found.append(spec.parent)
            entry = self.entries.get(spec.parent)
            if entry is None or entry.spec is None:
                break
            spec = entry.spec
        return tuple(found)

    def others(self, agent: str, orders: Collection[Order]) -> tuple[Order, ...]:
        """What holds the agent besides these orders."""
        hold = self.hold(agent)
        return tuple(order for order in hold.orders if order not in orders) if hold else ()

    def entry(self, agent: str, *, instance: str = "") -> Entry:
        """The agent's latest instance. `NotFound`; `Refused` where another instance was meant."""
        entry = self.entries.get(agent)
        if entry is None:
            raise NotFound(f"no agent {agent[:64]!r}", hint="clawback agents lists them")
        if instance and instance != entry.box.instance:
            raise Refused(
                f"{entry.box.agent} runs as {entry.box.instance} now, not as {instance[:128]!r}",
                hint="the order was for an earlier instance; look before repeating it",
            )
        return entry

    def earlier(self, agent: str, instance: str) -> Sandbox:
        """The record of an instance that another one has replaced. `NotFound`."""
        agents = self.parameters.state / "agents"
        try:
            return inventory.load(agents / check_name(agent) / check_name(instance))
        except InvalidInput:
            raise NotFound(f"{agent} has no record of an instance {instance[:128]!r}") from None

    def running(self, agent: str) -> Entry:
        """The same, where it runs. `Refused` where it does not."""
        entry = self.entry(agent)
        if not entry.running:
            raise Refused(f"{agent} does not run", hint="relaunch it first")
        return entry

    def say(
        self,
        activity: int,
        component: str,
        status: str,
        entry: Entry | None = None,
        *,
        severity: Severity = Severity.INFORMATIONAL,
        message: str = "",
    ) -> None:
        """Write a lifecycle event: of the agent where one is given, else of the core."""
        self.telemetry.writer.emit(
            Lifecycle,
            activity_id=activity,
            severity=severity,
            component=component,
            status=status,
            message=message,
            **(entry.tracked.fields if entry else {}),
        )
