"""Holds on disk: written and flushed before the kernel is touched, so that nothing that crashes can forget one."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Collection
from dataclasses import replace
from pathlib import Path

import structlog
from pydantic import TypeAdapter, ValidationError

from clawback.enforcement import durable
from clawback.errors import InvalidInput
from clawback.model import Hold, Level, Order

__all__ = ["FOUND", "Holds"]

FOUND = "found frozen without a hold"
"""Why the core itself holds an agent that it found so: a core died between freezing it and writing the hold."""

_FORMAT = "clawback-hold/2"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9.-]{0,62}")
_ORDERS = TypeAdapter(tuple[Order, ...])
_CORE = -1
_log = structlog.get_logger()


class Holds:
    """`STATE/holds/AGENT.json`, one file per held agent, mode 0600; the files are the truth, memory only a copy.

    A file that cannot be read, or is not as it was written, holds its agent at freeze and isolate: a damaged order is
    no permission. `damaged` lists the agents of such files.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._lock = threading.Lock()
        self._held: dict[str, tuple[Order, ...]] = {}
        self.damaged: tuple[str, ...] = ()
        for path in sorted(folder.glob("*.json")):
            self._held[path.stem] = self._read(path)
        durable.sweep(folder)

    def get(self, agent: str) -> Hold | None:
        """The hold on this agent alone, if one stands."""
        return Hold.of(agent, self._held.get(agent, ()))

    def all(self) -> tuple[Hold, ...]:
        """Every hold that stands."""
        return tuple(hold for agent in self._held.copy() if (hold := self.get(agent)))

    def place(self, agent: str, order: Order) -> Hold:
        """Hold the agent by one more order, durably when this returns.

        An order joins the same holder's earlier ones, whose time and reason stay; its exceptions take the place of
        theirs. One that names no incident is joined
        by the first of the same giver that does: a reflex freezes before there is an incident. What the core itself
        placed, because it found the agent so, becomes the next holder's.
        """
        with self._lock:
            before = self._held.get(agent, ())
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
            if joined != [merged]:
                self._write(agent, (*(one for one in before if one not in joined), merged))
            return self._hold(agent)

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
        if not _NAME.fullmatch(agent):
            raise InvalidInput("agent: not a name", hint="letters, digits, dots and dashes; at most 63")
        path = self._folder / f"{agent}.json"
        if orders:
            durable.write(path, f"{_FORMAT} {agent}", _ORDERS.dump_json(orders))
            self._held[agent] = orders
        else:
            durable.remove(path)
            self._held.pop(agent, None)

    def _read(self, path: Path) -> tuple[Order, ...]:
        try:
            orders = _ORDERS.validate_json(durable.read(path, f"{_FORMAT} {path.stem}"))
            if orders and all(order.levels for order in orders):
                return orders
            reason = "it orders nothing"
        except (InvalidInput, ValidationError) as error:
            reason = error.message if isinstance(error, InvalidInput) else "not orders"
        _log.error("hold unreadable; the agent is held at freeze and isolate", path=str(path), reason=reason)
        self.damaged += (path.stem,)
        return (
            Order(
                levels=(Level.FREEZE, Level.ISOLATE),
                reason="the hold's file is unreadable",
                by="core",
                placed_ns=path.lstat().st_mtime_ns,
            ),
        )


def _joins(one: Order, order: Order) -> bool:
    if one.uid == _CORE:
        return one.reason == FOUND
    if one.uid != order.uid:
        return False
    if one.incident == order.incident:
        return bool(order.incident) or one.by == order.by
    return not one.incident and one.by == order.by
