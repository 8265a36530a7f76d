"""What the core does, without the HTTP: agents launched, contained, released, and found again after a restart."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import os
import socket
import threading
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import structlog

from clawback.enforcement.core.entry import Entry, tracked
from clawback.enforcement.core.gateway_link import Attachment, GatewayLink
from clawback.enforcement.core.holds import Holds
from clawback.enforcement.core.keeper import Keeper
from clawback.enforcement.core.metrics import Metrics
from clawback.enforcement.core.specs import Specs, check_name, read_secrets
from clawback.enforcement.core.watchdog import Ending, Watchdog, read_ending
from clawback.enforcement.evidence import collect
from clawback.enforcement.policy import loader
from clawback.enforcement.quarantine import freeze, ladder
from clawback.enforcement.quarantine.tree import processes
from clawback.enforcement.sandbox import inventory, wire
from clawback.enforcement.sandbox.attempt import attempt
from clawback.enforcement.sandbox.record import Sandbox
from clawback.enforcement.sandbox.spawner import Spawner
from clawback.enforcement.telemetry.sandbox import SandboxTelemetry
from clawback.errors import NotEnforced, NotFound, Refused
from clawback.model import (
    AgentInfo,
    AgentState,
    Attempt,
    AttemptResult,
    Enforcement,
    EvidenceBundle,
    Hold,
    LaunchSpec,
    Level,
    LevelResult,
    Lifecycle,
    Severity,
)

__all__ = ["CoreParameters", "Service"]

_AT_ONCE = frozenset({Level.FREEZE, Level.ISOLATE})
_RANK = {Enforcement.NONE: 0, Enforcement.PARTIAL: 1, Enforcement.FULL: 2}
_UNKNOWN_STATUS = 255

_log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class CoreParameters:
    """What `clawback.yaml` says under `core:`, and where the state is."""

    state: Path
    cgroup: str = "clawback"
    uid_base: int = 1_900_000
    canaries: tuple[str, ...] = ()
    landlock_audit: bool = False
    heartbeat_seconds: float = 5.0


class Service:
    """Thread-safe. Methods raise as `clawback.world.Core` says."""

    def __init__(self, parameters: CoreParameters) -> None:
        state = parameters.state
        self._parameters = parameters
        self._entries: dict[str, Entry] = {}
        self._slow: defaultdict[str, threading.RLock] = defaultdict(threading.RLock)
        self._orders = threading.Lock()
        self.holds = Holds(state / "holds")
        self._specs = Specs(state / "agents")
        self.telemetry = SandboxTelemetry(
            state / "telemetry", uid_base=parameters.uid_base, landlock_audit=parameters.landlock_audit
        )
        self.metrics = Metrics(self._count)
        self.link = GatewayLink(state / "run" / "gateway-attach.sock")
        self._spawner = Spawner.start(
            state, cgroup=parameters.cgroup, uid_base=parameters.uid_base, canaries=parameters.canaries
        )
        self._watchdog = Watchdog(self.telemetry, self._ended, heartbeat_seconds=parameters.heartbeat_seconds)
        self._keeper = Keeper(self)
        self._since = time.time_ns()

    def start(self) -> None:
        """Find the agents that run, assert their holds before anything else, then watch and report."""
        found, problems = inventory.read_all(self._parameters.state)
        for problem in problems:
            _log.error("sandbox record unreadable", problem=problem)
        for box in found:  # oldest first: the newest instance of each agent stays
            self._entries[box.agent] = Entry(box=box, spec=self._specs.read(box.agent))
        for box in found:
            state = inventory.state(box)
            if state is AgentState.RUNNING:
                continue
            self.link.remove(box.instance)
            if self._entries[box.agent].box is box:
                self._set_ended(self._entries[box.agent], read_ending(box.folder) or Ending(state, None))
        for name, entry in self._entries.items():
            if entry.running and self.holds.get(name) is None and _stands_still(entry.box):
                self.holds.add(
                    name,
                    Level.FREEZE,
                    reason="found frozen without a hold",
                    by="core",
                    incident="",
                    at_ns=time.time_ns(),
                )
        for hold in self.holds.all():
            held = self._entries.get(hold.agent)
            if held is not None and held.running:
                self._assert(held, hold)
        self.telemetry.start()
        self.link.start()
        self._watchdog.start()
        for entry in self._entries.values():
            if entry.running:
                self._observe(entry.box)
                self._watch(entry, None)
        self._keeper.start()
        self._say(Lifecycle.START, "core", "started", message=f"{len(found)} agents found")

    def close(self) -> None:
        """Stop everything but the agents, which run on and are found again."""
        self._say(Lifecycle.STOP, "core", "stopped")
        self._keeper.close()
        self._watchdog.close()
        self.link.close()
        self._spawner.close()
        self.telemetry.close()

    # What is asked ------------------------------------------------------

    def agents(self) -> tuple[AgentInfo, ...]:
        """All agents, running or not."""
        return tuple(entry.info(self.holds.get(name)) for name, entry in sorted(self._entries.copy().items()))

    def agent(self, agent: str) -> AgentInfo:
        """One of them."""
        return self._entry(agent).info(self.holds.get(agent))

    def probe(self, agent: str, level: Level) -> LevelResult:
        """Read one level back."""
        return self._probe(self._entry(agent), level)

    def try_inside(self, agent: str, attempts: Sequence[Attempt]) -> tuple[AttemptResult, ...]:
        """Try each from inside."""
        return attempt(self._spawner, self._running(agent).box, attempts)

    def evidence(self, agent: str, *, incident: str) -> EvidenceBundle:
        """Collect a snapshot under `STATE/evidence/INCIDENT`."""
        return collect(self._entry(agent).box, self._parameters.state / "evidence", incident=incident)

    async def wait(self, agent: str, instance: str) -> int:
        """The exit status, when there is one."""
        entry = self._entry(agent)
        _same_instance(entry, instance)
        # Shielded: a caller that goes away must not cancel the end for the others who wait.
        return await asyncio.shield(asyncio.wrap_future(entry.ended))

    # What is ordered ----------------------------------------------------

    def launch(self, spec: LaunchSpec, *, stdio: tuple[int, int, int] | None = None) -> AgentInfo:
        """Start an agent; `stdio` is closed here in any case."""
        try:
            agent = check_name(spec.agent)
            with self._slow[agent]:
                self._refuse_held(agent)
                before = self._entries.get(agent)
                if before is not None and before.running:
                    raise Refused(f"{agent} is running already", hint="stop it first, or choose another --agent")
                return self._start(spec, stdio)
        finally:
            for descriptor in stdio or ():
                with contextlib.suppress(OSError):
                    os.close(descriptor)

    def contain(
        self, agent: str, level: Level, *, instance: str = "", reason: str, by: str, incident: str = ""
    ) -> LevelResult:
        """Make one level true: the hold first, durably, then the kernel.

        Freezing alone is the other way round, because writing the hold takes longer than all the rest, and a core that
        dies between the two leaves an agent frozen: `start` holds what it finds so.
        """
        began = time.perf_counter()
        entry = self._entry(agent)
        _same_instance(entry, instance)
        if level is Level.FREEZE:
            freeze.strike(entry.box)
        with self._orders:
            entry.orders += 1
            self.holds.add(agent, level, reason=reason, by=by, incident=incident, at_ns=time.time_ns())
        if level in _AT_ONCE:
            result = self._apply(entry, level)
        else:
            with self._slow[agent]:
                result = self._apply(entry, level)
        entry.enforced[level] = result.enforcement
        self.metrics.contained(result, time.perf_counter() - began)
        self._say(
            Lifecycle.OTHER, "hold", f"{level.word} {result.enforcement}", entry, message=f"by {by}: {result.observed}"
        )
        return result

    def release(self, agent: str, *, levels: Sequence[Level] = (), reason: str, by: str) -> tuple[LevelResult, ...]:
        """Undo levels, the highest first; the order is lifted only after the kernel was, so that a crash keeps it."""
        entry = self._entry(agent)
        with self._slow[agent]:
            orders = entry.orders
            hold = self.holds.get(agent)
            chosen = sorted(set(levels or (hold.levels if hold else ())), reverse=True)
            results = tuple(ladder.release(entry.box, level, run=self._spawner.run) for level in chosen)
            if Level.ISOLATE in chosen:
                self.link.resume(entry.box.instance)
            with self._orders:
                overtaken = entry.orders != orders
                if not overtaken:
                    self.holds.remove(agent, tuple(chosen))
                    for level in chosen:
                        entry.enforced.pop(level, None)
            if overtaken:
                hold = self.holds.get(agent)
                if hold is not None:
                    self._assert(entry, hold)
                raise Refused(f"{agent} was ordered held again during its release", hint="look at the new order first")
        words = ", ".join(f"{result.level.word} {result.enforcement}" for result in results)
        self._say(Lifecycle.OTHER, "hold", "released", entry, message=f"by {by}: {reason}; still: {words}")
        return results

    def relaunch(self, agent: str, *, policy_version: int, policy_text: str, reason: str, by: str) -> AgentInfo:
        """End what is left, start the recorded command anew."""
        entry = self._entry(agent)
        with self._slow[agent]:
            self._refuse_held(agent)
            spec = self._specs.read(agent)
            if spec is None:
                raise NotFound(f"{agent} has no launch record", hint="launch it anew with clawback run")
            stopped = ladder.apply(entry.box, Level.STOP)
            if stopped.enforcement is not Enforcement.FULL:
                raise NotEnforced(f"{agent} is not gone: {stopped.observed}", hint="the old processes must end first")
            self._say(Lifecycle.OTHER, "sandbox", "relaunched", entry, message=f"by {by}: {reason}")
            new = dataclasses.replace(spec, policy_version=policy_version, policy_text=policy_text)
            return self._start(new, None)

    def keep(self, agent: str) -> None:
        """Verify one hold, and assert it again if less of it holds than did. Skipped while a slow order runs."""
        entry = self._entries.get(agent)
        if entry is None or not entry.running or not self._slow[agent].acquire(blocking=False):
            return
        try:
            hold = self.holds.get(agent)
            for level in hold.levels if hold else ():
                before = entry.enforced.get(level, Enforcement.FULL)
                seen = self._probe(entry, level)
                if _RANK[seen.enforcement] >= _RANK[before] or not entry.running:
                    continue
                result = self._apply(entry, level)
                self.metrics.drifts.inc()
                self._say(
                    Lifecycle.OTHER,
                    "hold",
                    f"{level.word} reasserted: {result.enforcement}",
                    entry,
                    severity=Severity.HIGH,
                    message=f"found: {seen.observed}",
                )
        finally:
            self._slow[agent].release()

    # Inside -------------------------------------------------------------

    def _apply(self, entry: Entry, level: Level) -> LevelResult:
        result = ladder.apply(entry.box, level, run=self._spawner.run)
        if level is Level.ISOLATE and result.enforcement is Enforcement.NONE:
            # The namespace could not be entered. Its one way out can be closed from the outside all the same.
            self.link.suspend(entry.box.instance)
            return self._by_gateway(entry, result)
        return result

    def _probe(self, entry: Entry, level: Level) -> LevelResult:
        result = ladder.probe(entry.box, level, run=self._spawner.run)
        return self._by_gateway(entry, result) if level is Level.ISOLATE else result

    def _by_gateway(self, entry: Entry, result: LevelResult) -> LevelResult:
        if result.enforcement is not Enforcement.NONE or not self.link.suspended(entry.box.instance):
            return result
        return dataclasses.replace(
            result,
            enforcement=Enforcement.PARTIAL,
            observed="no gateway serves its only way out, and its connections were reset; inside, loopback is up",
            missing=(result.observed,),
            at_ns=time.time_ns(),
        )

    def _entry(self, agent: str) -> Entry:
        entry = self._entries.get(agent)
        if entry is None:
            raise NotFound(f"no agent {agent[:64]!r}", hint="clawback agents lists them")
        return entry

    def _running(self, agent: str) -> Entry:
        entry = self._entry(agent)
        if not entry.running:
            raise Refused(f"{agent} does not run", hint="relaunch it first")
        return entry

    def _refuse_held(self, agent: str) -> None:
        hold = self.holds.get(agent)
        if hold is not None:
            words = ", ".join(level.word for level in hold.levels)
            raise Refused(
                f"{agent} is held ({words}) by {hold.by}: {hold.reason[:200]}",
                hint="starting is no release: release it",
            )

    def _start(self, spec: LaunchSpec, stdio: tuple[int, int, int] | None) -> AgentInfo:
        secrets, refs = read_secrets(self._parameters.state / "secrets", spec)
        spec = dataclasses.replace(spec, credentials=refs)
        policy = loader.load(spec.policy_text, where=f"policy {spec.policy}").sandbox
        before = self._entries.get(spec.agent)
        if before is not None:
            self.telemetry.roster.expect(before.box.uid)
            # The new instance starts with a clean record: yesterday's denials must not contain it again.
            self.telemetry.writer.violations.forget(spec.agent)

        started: list[Entry] = []

        def prepared(box: Sandbox) -> None:
            # All of this before the first instruction: an agent that goes rogue with it must be reported, and be known
            # to whoever is told to freeze it.
            self._specs.write(spec)
            started.append(Entry(box=box, spec=spec))
            self._entries[spec.agent] = started[0]
            self._observe(box)

        try:
            launched = self._spawner.launch(spec, policy, secrets=secrets, stdio=stdio, prepared=prepared)
        except BaseException:
            if started:
                self._entries.pop(spec.agent)
            if before is not None:
                self._entries[spec.agent] = before
                if before.spec is not None:
                    self._specs.write(before.spec)
            raise
        launched.end.close()  # the shim's own word of the end; `exit.json` and the pidfd outlive this core
        entry = started[0]
        entry.box = launched.record
        # An order that came while the agent was being started saw no instance to act on: it is carried out now.
        hold = self.holds.get(spec.agent)
        if hold is not None:
            self._assert(entry, hold)
        self._watch(entry, launched.listener_fd)
        self._say(Lifecycle.START, "sandbox", "started", entry)
        return entry.info(hold)

    def _assert(self, entry: Entry, hold: Hold) -> None:
        for level in hold.levels:
            result = self._apply(entry, level)
            entry.enforced[level] = result.enforcement
            if result.enforcement is not Enforcement.FULL:
                _log.warning("hold not in full", agent=hold.agent, level=level.word, missing=result.missing)

    def _observe(self, box: Sandbox) -> None:
        """Report on a sandbox; at a launch, before the agent's first instruction: it may open a decoy at once."""
        missed = self.telemetry.add(tracked(box), canaries=box.canaries, pids=processes(box))
        if missed:
            _log.warning("canaries not watched", agent=box.agent, paths=missed)

    def _watch(self, entry: Entry, listener: int | None) -> None:
        box = entry.box
        if listener is None:
            listener = _fetch_listener(box)
        if listener >= 0:
            self.link.add(Attachment(agent=box.agent, instance=box.instance, policy=box.policy, listeners=(listener,)))
        self._watchdog.add(entry)

    def _ended(self, entry: Entry, ending: Ending) -> None:
        self.link.remove(entry.box.instance)
        self._set_ended(entry, ending)

    @staticmethod
    def _set_ended(entry: Entry, ending: Ending) -> None:
        entry.state = ending.state
        entry.exit_status = ending.exit_status
        if not entry.ended.done():
            entry.ended.set_result(_UNKNOWN_STATUS if ending.exit_status is None else ending.exit_status)

    def _say(
        self,
        activity: int,
        component: str,
        status: str,
        entry: Entry | None = None,
        *,
        severity: Severity = Severity.INFORMATIONAL,
        message: str = "",
    ) -> None:
        self.telemetry.writer.emit(
            Lifecycle,
            activity_id=activity,
            severity=severity,
            component=component,
            status=status,
            message=message,
            **(entry.tracked.fields if entry else {}),
        )

    def health(self) -> dict[str, Any]:
        """What `/healthz` says."""
        short = {name: why for name, why in self.telemetry.sources.items() if why != "on"}
        running = [entry for entry in self._entries.copy().values() if entry.running]
        unattached = [entry.box.agent for entry in running if not self.link.attached(entry.box.instance)]
        threads = {
            "telemetry": self.telemetry.alive,
            "watchdog": self._watchdog.alive,
            "keeper": self._keeper.alive,
            "gateway link": self.link.alive,
        }
        return {
            "status": "ok" if all(threads.values()) else "degraded",
            "ended_threads": sorted(name for name, alive in threads.items() if not alive),
            "since_ns": self._since,
            "agents": len(running),
            "held": len(self.holds.all()),
            "telemetry": dict(self.telemetry.sources),
            "telemetry_missing": sorted(short),
            "telemetry_lost": self.telemetry.writer.lost_total,
            "gateway": "connected" if self.link.connected else "absent",
            "without_gateway": unattached[:100],
        }

    def _count(self) -> tuple[dict[str, int], dict[str, int], int, int]:
        states = {state.value: 0 for state in AgentState} | {"held": len(self.holds.all())}
        violations = {}
        for name, entry in self._entries.copy().items():
            states[entry.state.value] += 1
            if entry.running:
                violations[name] = self.telemetry.writer.violations.last_hour(name)
        return states, violations, self.telemetry.writer.lost_total, self.telemetry.writer.written


def _fetch_listener(box: Sandbox) -> int:
    """The gateway's socket inside, from the shim that keeps it; -1 where the shim is gone or has none."""
    # Through the folder's descriptor: a socket's path may have 107 bytes at most.
    folder = os.open(box.folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as link:
            link.settimeout(2.0)
            link.connect(f"/proc/self/fd/{folder}/shim.sock")
            _, descriptors = wire.receive(link)
    except (OSError, ValueError, wire.Closed) as error:
        _log.warning("no way out for an agent: its shim does not answer", agent=box.agent, error=str(error))
        return -1
    finally:
        os.close(folder)
    for descriptor in descriptors[1:]:
        os.close(descriptor)
    return descriptors[0] if descriptors else -1


def _stands_still(box: Sandbox) -> bool:
    try:
        return bool(box.cgroup) and freeze.frozen(box)
    except FileNotFoundError:
        return False


def _same_instance(entry: Entry, instance: str) -> None:
    if instance and instance != entry.box.instance:
        raise Refused(
            f"{entry.box.agent} runs as {entry.box.instance} now, not as {instance[:128]!r}",
            hint="the order was for an earlier instance; look before repeating it",
        )
