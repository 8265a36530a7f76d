"""Agents started: launched, launched anew, and found running by a core that came back."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import time

import structlog

from clawback.enforcement.core import group_freeze
from clawback.enforcement.core.attach import fetch_listener
from clawback.enforcement.core.ends import Ends
from clawback.enforcement.core.entry import Entry, tracked
from clawback.enforcement.core.gateway_link import Attachment
from clawback.enforcement.core.holds import FOUND
from clawback.enforcement.core.levels import Levels
from clawback.enforcement.core.outfit import outfitted, withheld
from clawback.enforcement.core.parts import Parts
from clawback.enforcement.core.specs import check_name, read_secrets
from clawback.enforcement.core.watchdog import Ending, Watchdog, read_ending
from clawback.enforcement.policy import loader
from clawback.enforcement.quarantine import freeze, ladder
from clawback.enforcement.quarantine.tree import processes
from clawback.enforcement.sandbox import inventory
from clawback.enforcement.sandbox.record import Sandbox
from clawback.errors import InvalidInput, NotEnforced, NotFound, Refused
from clawback.model import AgentInfo, AgentState, Enforcement, LaunchSpec, Level, Lifecycle, Order

__all__ = ["Starts"]

_log = structlog.get_logger()


class Starts:
    """Thread-safe; one start of an agent at a time."""

    def __init__(self, parts: Parts, levels: Levels, ends: Ends, watchdog: Watchdog) -> None:
        self._parts = parts
        self._levels = levels
        self._ends = ends
        self._watchdog = watchdog

    def find(self) -> int:
        """At the core's start: read which agents there are and make their holds true. How many there are."""
        parts = self._parts
        found, problems = inventory.read_all(parts.parameters.state)
        for problem in problems:
            _log.error("sandbox record unreadable", problem=problem)
        for box in found:  # oldest first: the newest instance of each agent stays
            entry = parts.entries[box.agent] = Entry(box=box, spec=parts.specs.read(box.agent))
            entry.settled.set()
        for box in found:
            state = inventory.state(box)
            if state is AgentState.RUNNING:
                continue
            parts.link.remove(box.instance)
            if parts.entries[box.agent].box is box:
                self._ends.record(parts.entries[box.agent], read_ending(box.folder) or Ending(state, None))
        parts.holds.presume(parts.entries)
        for name, entry in parts.entries.items():
            if not entry.running:
                continue
            hold = parts.hold(name)
            if hold is None and freeze.stands_still(entry.box):
                order = Order(levels=(Level.FREEZE,), reason=FOUND, by="core", placed_ns=time.time_ns())
                hold = parts.holds.place(name, order)
            if hold is not None:
                self._levels.assert_hold(entry, hold)
        # Each leaf stands for itself by now; a core that died while it halted all may have left the whole group frozen.
        group_freeze.thaw(parts.parameters.cgroup)
        return len(found)

    def follow_found(self) -> None:
        """Report on those that run, and give them their way out, as after a launch."""
        if any("escalation" in entry.box.layers for entry in self._parts.entries.values() if entry.running):
            self._parts.supervision.want()  # one that is there serves them already, a new one finds them
        for entry in self._parts.entries.values():
            if entry.running:
                self._observe(entry.box)
                self._follow(entry, None)

    def launch(self, spec: LaunchSpec, *, stdio: tuple[int, int, int] | None = None) -> AgentInfo:
        """Start an agent; `stdio` is closed here in any case."""
        parts = self._parts
        try:
            agent = check_name(spec.agent)
            with parts.slow[agent]:
                self._check_parent(spec)
                self._refuse_held(agent, spec)
                before = parts.entries.get(agent)
                if before is not None and before.running:
                    raise Refused(f"{agent} is running already", hint="stop it first, or choose another --agent")
                return self._start(spec, stdio)
        finally:
            for descriptor in stdio or ():
                with contextlib.suppress(OSError):
                    os.close(descriptor)

    def relaunch(
        self, agent: str, *, policy_version: int, policy_text: str, reason: str, by: str, policy: str = ""
    ) -> AgentInfo:
        """End what is left, start the recorded command anew; under another policy than before, where one is named."""
        parts = self._parts
        entry = parts.entry(agent)
        with parts.slow[agent]:
            spec = parts.specs.read(agent)
            if spec is None:
                raise NotFound(f"{agent} has no launch record", hint="launch it anew with clawback run")
            self._refuse_held(agent, spec)
            stopped = ladder.apply(entry.box, Level.STOP)
            if stopped.enforcement is not Enforcement.FULL:
                raise NotEnforced(f"{agent} is not gone: {stopped.observed}", hint="the old processes must end first")
            parts.say(Lifecycle.OTHER, "sandbox", "relaunched", entry, message=f"by {by}: {reason}")
            new = dataclasses.replace(
                spec, policy=policy or spec.policy, policy_version=policy_version, policy_text=policy_text
            )
            return self._start(new, None)

    def _check_parent(self, spec: LaunchSpec) -> None:
        if not spec.parent:
            return
        if spec.parent not in self._parts.entries:
            raise InvalidInput(f"parent: no agent {spec.parent[:64]!r}", hint="clawback agents lists them")
        if spec.agent in self._parts.ancestors(spec):
            raise InvalidInput(f"parent: {spec.parent} works for {spec.agent} itself", hint="name another, or none")

    def _refuse_held(self, agent: str, spec: LaunchSpec) -> None:
        hold = self._parts.hold(agent, spec)
        if hold is not None:
            words = ", ".join(level.word for level in hold.levels)
            names = ", ".join(dict.fromkeys(order.holder for order in hold.orders))
            raise Refused(
                f"{agent} is held ({words}) by {names[:200]}: {hold.reason[:200]}",
                hint="starting is no release: release it, or lift the halt",
            )
        if spec.parent and self._parts.hold(spec.parent):
            raise Refused(
                f"{agent} is not started: {spec.parent}, for which it works, is held",
                hint="release the parent first",
            )

    def _start(self, spec: LaunchSpec, stdio: tuple[int, int, int] | None) -> AgentInfo:
        parts = self._parts
        secrets, refs = read_secrets(parts.parameters.state / "secrets", spec)
        spec = dataclasses.replace(spec, credentials=refs)
        policy = loader.load(spec.policy_text, where=f"policy {spec.policy}").sandbox
        before = parts.entries.get(spec.agent)
        if before is not None:
            parts.telemetry.roster.expect(before.box.uid)
            # The new instance starts with a clean record: yesterday's denials must not contain it again.
            parts.telemetry.writer.violations.forget(spec.agent)

        started: list[Entry] = []

        def prepared(box: Sandbox) -> None:
            # All of this before the first instruction: an agent that goes rogue with it must be reported, and be known
            # to whoever is told to freeze it.
            parts.specs.write(spec)
            started.append(Entry(box=box, spec=spec))
            parts.entries[spec.agent] = started[0]
            # From here on whoever orders a hold finds the entry; whoever did before is found here.
            self._refuse_held(spec.agent, spec)
            self._observe(box)
            if not parts.supervision.attach(box):
                message = "what it escalates is refused until a supervisor finds it"
                parts.say(Lifecycle.OTHER, "supervision", "unsupervised", started[0], message=message)

        try:
            launched = parts.spawner.launch(
                outfitted(spec, parts.parameters.state, network=policy.network != "none"),
                policy,
                secrets=withheld(spec, secrets),
                stdio=stdio,
                prepared=prepared,
            )
        except BaseException:
            if before is not None:
                parts.entries[spec.agent] = before
                if before.spec is not None:
                    parts.specs.write(before.spec)
            elif started:
                parts.entries.pop(spec.agent)
            for entry in started:
                entry.settled.set()
            raise
        started[0].settled.set()
        launched.end.close()  # the shim's own word of the end; `exit.json` and the pidfd outlive this core
        entry = started[0]
        entry.box = launched.record
        # An order that came while the agent was being started saw no instance to act on: it is carried out now.
        hold = parts.hold(spec.agent)
        if hold is not None:
            self._levels.assert_hold(entry, hold)
        self._follow(entry, launched.listener_fd)
        parts.say(Lifecycle.START, "sandbox", "started", entry)
        return entry.info(hold)

    def _observe(self, box: Sandbox) -> None:
        """Report on a sandbox; at a launch, before the agent's first instruction: it may open a decoy at once."""
        missed = self._parts.telemetry.add(tracked(box), canaries=box.canaries, pids=processes(box))
        if missed:
            _log.warning("canaries not watched", agent=box.agent, paths=missed)

    def _follow(self, entry: Entry, listener: int | None) -> None:
        """Give the agent its way out, and watch for its end."""
        box, spec = entry.box, entry.spec
        if listener is None:
            listener = fetch_listener(box)
        if listener >= 0:
            self._parts.link.add(
                Attachment(
                    agent=box.agent,
                    instance=box.instance,
                    policy=box.policy,
                    listeners=(listener,),
                    tenant=spec.tenant if spec else None,
                    team=spec.team if spec else None,
                    tags=spec.tags if spec else None,
                )
            )
        self._watchdog.add(entry)
