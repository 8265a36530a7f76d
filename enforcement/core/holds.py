"""Holds on disk: written and flushed before the kernel is touched, so that nothing that crashes can forget one."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import replace
from pathlib import Path

from clawback.enforcement.core.hold_files import HoldFiles, unreadable
from clawback.errors import InvalidInput
from clawback.model import Hold, Level, Order

__all__ = ["FOUND", "Holds"]

FOUND = "found frozen without a hold"
"""Why the core itself holds an agent that it found so: a core died between freezing it and writing the hold."""

_CORE = -1


class Holds:
    """The files (`hold_files`) are the truth, memory only a copy. `damaged` names those that were so at the start."""

    def __init__(self, folder: Path) -> None:
        self._files = HoldFiles(folder)
        self._lock = threading.Lock()
        self._held = self._files.read()
        self._dated = {agent for agent, orders in self._held.items() if _dated(orders)}
        self.damaged = self._files.damaged

    def get(self, agent: str) -> Hold | None:
        """The hold on this agent alone, if one stands."""
        return Hold.of(agent, self._held.get(agent, ()))

    def all(self) -> tuple[Hold, ...]:
        """Every hold that stands."""
        return tuple(hold for agent in self._held.copy() if (hold := self.get(agent)))

    def __contains__(self, agent: str) -> bool:
        """Whether an order stands on this agent alone. Asked for a thousand agents, ten times a second."""
        return agent in self._held

    def dated(self) -> tuple[Hold, ...]:
        """Those with an order that becomes due and is not yet."""
        return tuple(hold for agent in self._dated.copy() if (hold := self.get(agent)))

    def place(self, agent: str, order: Order) -> Hold:
        """Hold the agent by one more order, durably when this returns.

        An order joins the same holder's earlier ones, whose time and reason stay; its exceptions take the place of
        theirs. One that names no incident is joined by the first of the same giver that does: a reflex freezes before
        there is an incident. What the core itself placed, because it found the agent so, becomes the next holder's.
        """
        with self._lock:
            before = self._held.get(agent, ())
            after = _with(before, order)
            if after != before:
                self._write(agent, after)
            return self._hold(agent)

    def place_many(self, orders: Mapping[str, Order]) -> None:
        """The same for many agents. Those that nothing holds yet, most of them in a storm, take one flush together."""
        if not all(order.levels for order in orders.values()):
            raise InvalidInput("an order without a level", hint="name one: freeze, isolate …")
        with self._lock:
            fresh = {agent: (order,) for agent, order in orders.items() if agent not in self._held}
            if fresh:
                self._files.write_many(fresh)
                for agent, first in fresh.items():
                    self._keep(agent, first)
            for agent, order in orders.items():
                if agent not in fresh and (after := _with(self._held[agent], order)) != self._held[agent]:
                    self._write(agent, after)

    def presume(self, agents: Iterable[str]) -> None:
        """Where a file that held many cannot be read: hold each of these, whoever it meant was one of them."""
        if not self._files.lost:
            return
        self.place_many(dict.fromkeys(agents, unreadable(time.time_ns())))
        with self._lock:
            self._files.forget_lost()

    def lift(self, agent: str, orders: Collection[Order], levels: Collection[Level]) -> Hold | None:
        """Take levels out of these orders, durably; what is left of the hold, None when nothing is."""
        with self._lock:
            before = self._held.get(agent, ())
            after = []
            for one in before:
                left = tuple(level for level in one.levels if one not in orders or level not in levels)
                if left:
                    after.append(replace(one, levels=left))
            if tuple(after) != before:
                self._write(agent, tuple(after))
            return Hold.of(agent, tuple(after))

    def mark(self, agent: str, which: Callable[[Order], bool]) -> tuple[Order, ...]:
        """Note, durably, that these orders are due. Those that were not before."""
        with self._lock:
            before = self._held.get(agent, ())
            found = tuple(one for one in before if not one.due and which(one))
            if found:
                self._write(agent, tuple(replace(one, due=True) if one in found else one for one in before))
            return found

    def _hold(self, agent: str) -> Hold:
        hold = self.get(agent)
        if hold is None:
            raise InvalidInput(f"{agent}: an order without a level", hint="name one: freeze, isolate …")
        return hold

    def _write(self, agent: str, orders: tuple[Order, ...]) -> None:
        self._files.write(agent, orders)
        self._keep(agent, orders)

    def _keep(self, agent: str, orders: tuple[Order, ...]) -> None:
        if orders:
            self._held[agent] = orders
        else:
            self._held.pop(agent, None)
        (self._dated.add if _dated(orders) else self._dated.discard)(agent)


def _dated(orders: tuple[Order, ...]) -> bool:
    return any(order.due_ns and not order.due for order in orders)


def _with(before: tuple[Order, ...], order: Order) -> tuple[Order, ...]:
    """These orders and one more."""
    joined = [one for one in before if _joins(one, order)]
    merged = order
    for one in joined:
        first = one if one.uid != _CORE else merged
        merged = replace(
            merged,
            levels=tuple(sorted({*merged.levels, *one.levels})),
            reason=first.reason,
            by=first.by,
            incident=merged.incident or one.incident,
            placed_ns=min(merged.placed_ns, one.placed_ns),
            due_ns=merged.due_ns or one.due_ns,
            due=one.due and not merged.due_ns,
            allow=one.allow if merged.allow is None else merged.allow,
            readable=one.readable if merged.readable is None else merged.readable,
        )
    return before if joined == [merged] else (*(one for one in before if one not in joined), merged)


def _joins(one: Order, order: Order) -> bool:
    if one.uid == _CORE:
        return one.reason == FOUND
    if one.uid != order.uid:
        return False
    if one.incident == order.incident:
        return bool(order.incident) or one.by == order.by
    return not one.incident and one.by == order.by
