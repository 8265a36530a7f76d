"""Halt many agents by one order: all, or a tenant's, a team's, a tag's, a tree's; and lift it again.

In this order: the halt stands in memory, so that no start passes; the kernel is told to freeze, leaf by leaf, and for
`all` the whole group before; the order is flushed once, beside that; every leaf is read back. What comes after freezing
(isolate, and what more was ordered) goes on in the background, while everything stands still.
"""

from __future__ import annotations

import secrets
import time
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext

import structlog

from clawback.enforcement.core import group_freeze, mass_freeze
from clawback.enforcement.core.entry import Entry
from clawback.enforcement.core.halt_reports import HaltReports
from clawback.enforcement.core.halts import check_selector
from clawback.enforcement.core.levels import Levels
from clawback.enforcement.core.orders import SETTLE_SECONDS, Orders
from clawback.enforcement.core.parts import Parts
from clawback.enforcement.core.snapshots import Snapshots
from clawback.enforcement.quarantine import freeze
from clawback.errors import ClawbackError, Refused
from clawback.model import (
    Enforcement,
    Halt,
    HaltedAgent,
    HaltReport,
    Level,
    LevelResult,
    Lifecycle,
    Order,
    Selector,
    SelectorKind,
    Severity,
)

__all__ = ["Halting"]

_log = structlog.get_logger()


class Halting:
    """Thread-safe. Raises `InvalidInput` for a selector that is none, `NotFound` for a halt that does not stand."""

    def __init__(self, parts: Parts, levels: Levels, orders: Orders, snapshots: Snapshots) -> None:
        self._parts = parts
        self._levels = levels
        self._orders = orders
        self._snapshots = snapshots
        self._reports = HaltReports()
        self._flush = ThreadPoolExecutor(max_workers=1, thread_name_prefix="halt-flush")
        self._rest = ThreadPoolExecutor(max_workers=4, thread_name_prefix="halt")
        self._closing = False

    def close(self) -> None:
        """What is not carried out yet, the next core asserts: the halts stand."""
        self._closing = True
        self._rest.shutdown(wait=True, cancel_futures=True)
        self._flush.shutdown(wait=True)

    def halt(
        self, selector: Selector, level: Level, *, reason: str, by: str, uid: int, incident: str = "", due_ns: int = 0
    ) -> HaltReport:
        """Freeze all that it means, and hold them at every level up to this one. Returns when each freeze was read back
        and the order is on disk; `report` says how the rest goes.
        """
        began = time.perf_counter()
        parts = self._parts
        number = f"HALT-{time.strftime('%Y%m%d', time.gmtime())}-{secrets.token_hex(4).upper()}"
        order = Order(
            levels=_steps(level),
            reason=reason,
            by=by,
            uid=uid,
            incident=incident,
            placed_ns=time.time_ns(),
            due_ns=due_ns,
            halt=number,
        )
        halt = Halt(id=number, selector=check_selector(selector), order=order)
        # First of all: a start that comes from now on is refused, and one that is under way finds it before its agent
        # runs, unless its agent is among those read below.
        parts.halts.stand(halt)
        flushed = self._flush.submit(self._write, halt, began)
        entries = parts.halted(halt)
        told = self._strike(entries, everything=selector.kind is SelectorKind.ALL)
        struck = _ms(began)
        with parts.orders:
            for entry in entries:
                entry.orders += 1
        agents = tuple(
            HaltedAgent(
                agent=entry.box.agent,
                instance=entry.box.instance,
                results=(self._verify(entry, told),),
                pending=order.levels[1:],
            )
            for entry in entries
        )
        verified = _ms(began)
        report = HaltReport(
            halt=halt,
            agents=agents,
            struck_ms=struck,
            verified_ms=verified,
            durable_ms=self._durable(flushed, halt),
        )
        self._reports.add(report)
        self._rest.submit(self._tell, report)
        for entry in entries:
            self._rest.submit(self._go_on, halt, entry)
        return report

    def report(self, halt: str) -> HaltReport:
        """How far it is; of one from before this core's start, what can be seen now."""
        report = self._reports.get(halt)
        if report is not None:
            return report
        standing = self._parts.halts.get(halt)
        agents = tuple(
            HaltedAgent(
                agent=entry.box.agent,
                instance=entry.box.instance,
                results=tuple(self._levels.probe(entry, level) for level in standing.order.levels),
            )
            for entry in self._parts.halted(standing)
        )
        return HaltReport(halt=standing, agents=agents)

    def lift(self, halt: str, *, reason: str, by: str, uid: int) -> tuple[HaltedAgent, ...]:
        """Undo it for every agent that nothing else holds, then take it off the disk; each result says how much of a
        level still holds. `Refused` as for a release.
        """
        parts = self._parts
        standing = parts.halts.get(halt)
        try:
            parts.parameters.release.check(uid, (standing.order,), standing.id)
        except Refused as error:
            message = f"{standing.id}: by {by} (user {uid}): {error.message}"
            parts.say(Lifecycle.OTHER, "hold", "release refused", severity=Severity.MEDIUM, message=message)
            raise
        # Out of memory first, or the keeper would put back what is being undone. A core that dies now finds the file.
        entries = parts.halted(standing)
        parts.halts.withdraw(standing)
        results = tuple(self._rest.map(lambda entry: self._let_go(standing, entry), entries))
        parts.halts.remove(standing)
        self._reports.drop(standing.id)
        message = f"{standing.id} ({standing.selector}): by {by} (user {uid}): {reason}"
        parts.say(Lifecycle.OTHER, "hold", "halt lifted", message=message)
        return results

    def _strike(self, entries: tuple[Entry, ...], *, everything: bool) -> frozenset[str]:
        starting = [entry for entry in entries if not entry.settled.is_set()]
        with group_freeze.frozen(self._parts.parameters.cgroup) if everything else nullcontext():
            told = mass_freeze.strike([entry for entry in entries if entry not in starting])
        end = time.monotonic() + SETTLE_SECONDS
        for entry in starting:
            entry.settled.wait(max(0.0, end - time.monotonic()))
        return told | mass_freeze.strike(starting)

    def _write(self, halt: Halt, began: float) -> float:
        self._parts.halts.write(halt)
        return _ms(began)

    def _durable(self, flushed: Future[float], halt: Halt) -> float:
        try:
            return flushed.result()
        except OSError as error:
            # It stands in memory, and the leaves are frozen: what a core that starts anew finds so, it holds.
            _log.error("halt not written", halt=halt.id, error=error.strerror)
            message = f"{halt.id}: {error.strerror}: starts are refused until the core ends, and no longer"
            self._parts.say(Lifecycle.OTHER, "hold", "halt not durable", severity=Severity.HIGH, message=message)
            return -1.0

    def _verify(self, entry: Entry, told: frozenset[str]) -> LevelResult:
        """In one pass where the leaf took the order and nobody is at work on the agent, who might thaw it for a moment;
        whoever begins after that finds the order.
        """
        result = None
        idle = self._parts.slow[entry.box.agent]
        if entry.box.instance in told and idle.acquire(blocking=False):
            try:
                result = mass_freeze.read_back(entry.box)
            finally:
                idle.release()
        result = result or self._levels.apply(entry, Level.FREEZE)
        entry.enforced[Level.FREEZE] = result.enforcement
        return result

    def _go_on(self, halt: Halt, entry: Entry) -> None:
        """The levels after freezing, for one agent. What goes wrong is what that agent's results say."""
        with self._parts.slow[entry.box.agent]:
            if self._parts.halts.stands(halt):
                freeze.order(entry.box)
        for level in halt.order.levels[1:]:
            if self._closing or not self._parts.halts.stands(halt):
                return
            try:
                if level is Level.STOP:
                    self._snapshots.collect(entry.box.agent, incident=halt.order.incident)
                result = self._orders.carry_out(entry, level)
                self._parts.metrics.contained(result, result.elapsed_ms / 1000)
            except (ClawbackError, OSError) as error:
                _log.error("halt not carried out", agent=entry.box.agent, level=level.word, error=str(error))
                result = LevelResult(
                    level=level,
                    enforcement=Enforcement.NONE,
                    observed=str(error)[:500],
                    missing=(f"all of {level.word}",),
                    at_ns=time.time_ns(),
                )
            self._reports.note(halt.id, entry.box.agent, result)

    def _let_go(self, halt: Halt, entry: Entry) -> HaltedAgent:
        agent = entry.box.agent
        with self._parts.slow[agent]:
            count = entry.orders
            steps = sorted(halt.order.levels, reverse=True)
            results = tuple(self._orders.undo(entry, (halt.order,), level) for level in steps)
            hold = self._parts.hold(agent)
            for level in set(steps) - set(hold.levels if hold else ()):
                entry.enforced.pop(level, None)
            if entry.orders != count and hold is not None:
                self._levels.assert_hold(entry, hold)
        return HaltedAgent(agent=agent, instance=entry.box.instance, results=results)

    def _tell(self, report: HaltReport) -> None:
        short = [one.agent for one in report.agents if one.results[0].enforcement is not Enforcement.FULL]
        halt = report.halt
        message = (
            f"{halt.id} ({halt.selector}): by {halt.order.by}: {halt.order.reason}; {len(report.agents)} agents, "
            f"not frozen in full: {', '.join(short[:20]) or 'none'}"
        )
        self._parts.say(Lifecycle.OTHER, "hold", "halt", severity=Severity.HIGH, message=message)
        for one in report.agents:
            self._parts.metrics.contained(one.results[0], report.verified_ms / 1000)


def _steps(level: Level) -> tuple[Level, ...]:
    """What is about to be killed is not restricted and sealed first."""
    passed = {Level.RESTRICT, Level.SEAL} if level is Level.STOP else set()
    return tuple(one for one in Level if one <= level and one not in passed)


def _ms(began: float) -> float:
    return (time.perf_counter() - began) * 1000
