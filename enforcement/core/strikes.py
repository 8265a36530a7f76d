"""Freeze ahead of an order, for agents that have to wait for theirs: one call for many, the kernel told, no more.

No hold is placed and nothing is claimed: both come with the order. Where it does not come in time, because whoever was
to give it died, the core holds the agent itself, as one that it finds frozen at its start: nobody thaws by forgetting.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping

import structlog

from clawback.enforcement.core import mass_freeze
from clawback.enforcement.core.entry import Entry
from clawback.enforcement.core.holds import FOUND
from clawback.enforcement.core.parts import Parts
from clawback.enforcement.quarantine import freeze
from clawback.model import AgentInfo, Level, Lifecycle, Order, Severity

__all__ = ["Strikes"]

_log = structlog.get_logger()


class Strikes:
    """Thread-safe."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._lock = threading.Lock()
        self._struck: dict[str, tuple[str, float]] = {}

    def strike(self, agents: Mapping[str, str], *, drills: bool) -> tuple[AgentInfo, ...]:
        """Agent → the instance that is meant. Those whose kernel took it: not one that is another instance by now, is
        just being started, has ended or has no cgroup of its own; one in a drill only where `drills` is meant too.
        """
        meant = [
            entry
            for agent, instance in agents.items()
            if (entry := self._parts.entries.get(agent)) is not None
            and entry.box.instance == instance
            and entry.running
            and entry.settled.is_set()
            and (drills or not _rehearses(entry))
        ]
        taken = mass_freeze.strike(meant)
        now = time.monotonic()
        struck = {entry.box.agent: (entry.box.instance, now) for entry in meant if entry.box.instance in taken}
        with self._lock:
            self._struck.update(struck)
        return tuple(self._parts.agent(agent) for agent in struck)

    def hold_forgotten(self) -> None:
        """Hold those whose order has not come within `order_seconds`. To be called from time to time."""
        due = time.monotonic() - self._parts.parameters.order_seconds
        with self._lock:
            over = {agent: instance for agent, (instance, at) in self._struck.items() if at <= due}
            for agent in over:
                del self._struck[agent]
        for agent, instance in over.items():
            entry = self._parts.entries.get(agent)
            if entry is not None and entry.box.instance == instance and self._parts.hold(agent) is None:
                self._hold(agent, entry)

    def _hold(self, agent: str, entry: Entry) -> None:
        if not entry.running or not freeze.stands_still(entry.box):
            return  # somebody let it go on: a hold was placed and released since
        order = Order(levels=(Level.FREEZE,), reason=FOUND, by="core", placed_ns=time.time_ns())
        with self._parts.orders:
            entry.orders += 1
            self._parts.holds.place(agent, order)
        _log.warning("held: frozen ahead of an order that did not come", agent=agent)
        message = f"frozen ahead of an order that did not come within {self._parts.parameters.order_seconds:g} s"
        self._parts.say(Lifecycle.OTHER, "hold", "freeze full", entry, severity=Severity.HIGH, message=message)


def _rehearses(entry: Entry) -> bool:
    return entry.spec is not None and "drill" in entry.spec.tags
