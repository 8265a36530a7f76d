"""Holds as files: one for each held agent, and one for many that were held at once, flushed once for all of them.

    STATE/holds/AGENT.json           that agent's orders
    STATE/holds/together/ID.json     agent → its orders, until each is released or held by a further order

Where a crash leaves an agent in both, its own file stands: it was written later, and with all that the other says.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Collection, Mapping
from pathlib import Path

import structlog
from pydantic import TypeAdapter, ValidationError

from clawback.enforcement import durable
from clawback.errors import InvalidInput
from clawback.model import Level, Order

__all__ = ["HoldFiles", "unreadable"]

_FORMAT = "clawback-hold/2"
_FORMAT_TOGETHER = "clawback-holds/1"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9.-]{0,62}")
_ORDERS = TypeAdapter(tuple[Order, ...])
_TOGETHER = TypeAdapter(dict[str, tuple[Order, ...]])
_log = structlog.get_logger()


class HoldFiles:
    """Mode 0600. Not thread-safe. What cannot be read, or is not as it was written, is in `damaged` by its name; of a
    file for many nobody can say any more whom it meant: those are in `lost`, until `forget_lost`.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._many = folder / "together"
        self._many.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._together: dict[str, dict[str, tuple[Order, ...]]] = {}
        self._which: dict[str, str] = {}  # agent → the file for many that it is in
        self._own: set[str] = set()  # agents with a file of their own
        self.damaged: tuple[str, ...] = ()
        self.lost: tuple[str, ...] = ()

    def read(self) -> dict[str, tuple[Order, ...]]:
        """Agent → its orders. A damaged file holds its agent at freeze and isolate: it is no permission."""
        held: dict[str, tuple[Order, ...]] = {}
        for path in sorted(self._many.glob("*.json")):
            for agent, orders in self._read_many(path).items():
                held[agent] = orders
                self._which[agent] = path.stem
        for path in sorted(self._folder.glob("*.json")):
            held[path.stem] = self._read_one(path)
            self._own.add(path.stem)
        durable.sweep(self._folder)
        durable.sweep(self._many)
        return held

    def write(self, agent: str, orders: tuple[Order, ...]) -> None:
        """Durable when this returns; without orders the agent is in no file any more."""
        path = self._path(agent)
        if orders:
            durable.write(path, f"{_FORMAT} {agent}", _ORDERS.dump_json(orders))
            self._own.add(agent)
            if agent in self._which and self._own.issuperset(self._together[self._which[agent]]):
                self._take_out(agent)
            return
        if agent in self._which:
            self._take_out(agent)
        durable.remove(path)
        self._own.discard(agent)

    def write_many(self, held: Mapping[str, tuple[Order, ...]]) -> None:
        """The same for agents that no file holds yet, with one flush."""
        for agent in held:
            self._path(agent)
        name = secrets.token_hex(8)
        self._write_many(name, dict(held))
        self._which.update(dict.fromkeys(held, name))

    def forget_lost(self) -> None:
        """Set the damaged files for many aside, once whoever they may have meant is held otherwise."""
        for name in self.lost:
            durable.set_aside(self._many / f"{name}.json")
        self.lost = ()

    def _take_out(self, agent: str) -> None:
        """Of the file for many, with all others that have a file of their own by now."""
        name = self._which[agent]
        there = self._together[name]
        left = {one: orders for one, orders in there.items() if one != agent and one not in self._own}
        self._write_many(name, left)
        for one in there.keys() - left.keys():
            del self._which[one]

    def _write_many(self, name: str, held: dict[str, tuple[Order, ...]]) -> None:
        path = self._many / f"{name}.json"
        if held:
            durable.write(path, f"{_FORMAT_TOGETHER} {name}", _TOGETHER.dump_json(held))
            self._together[name] = held
        else:
            durable.remove(path)
            self._together.pop(name, None)

    def _path(self, agent: str) -> Path:
        if not _NAME.fullmatch(agent):
            raise InvalidInput("agent: not a name", hint="letters, digits, dots and dashes; at most 63")
        return self._folder / f"{agent}.json"

    def _read_many(self, path: Path) -> dict[str, tuple[Order, ...]]:
        try:
            held = _TOGETHER.validate_json(durable.read(path, f"{_FORMAT_TOGETHER} {path.stem}"))
            _check(held.values())
        except (InvalidInput, ValidationError) as error:
            _log.error(
                "holds unreadable; every agent is held at freeze and isolate", path=str(path), reason=_why(error)
            )
            self.damaged += (f"together/{path.stem}",)
            self.lost += (path.stem,)
            return {}
        self._together[path.stem] = held
        return held

    def _read_one(self, path: Path) -> tuple[Order, ...]:
        try:
            orders = _ORDERS.validate_json(durable.read(path, f"{_FORMAT} {path.stem}"))
            _check((orders,))
        except (InvalidInput, ValidationError) as error:
            _log.error("hold unreadable; the agent is held at freeze and isolate", path=str(path), reason=_why(error))
            self.damaged += (path.stem,)
            return (unreadable(path.lstat().st_mtime_ns),)
        return orders


def _check(held: Collection[tuple[Order, ...]]) -> None:
    if not held or not all(orders and all(order.levels for order in orders) for orders in held):
        raise InvalidInput("it orders nothing")


def _why(error: InvalidInput | ValidationError) -> str:
    return error.message if isinstance(error, InvalidInput) else "not orders"


def unreadable(placed_ns: int) -> Order:
    """What stands in the place of orders that cannot be read."""
    return Order(
        levels=(Level.FREEZE, Level.ISOLATE),
        reason="the hold's file is unreadable",
        by="core",
        placed_ns=placed_ns,
    )
