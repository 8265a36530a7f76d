"""Orders on disk: written and flushed before they count, so that no crash forgets one."""

from __future__ import annotations

import hashlib
from pathlib import Path

import structlog
from pydantic import TypeAdapter, ValidationError

from clawback.enforcement import durable
from clawback.enforcement.policy.order_form import ID, checked
from clawback.errors import ClawbackError, NotEnforced, Refused
from clawback.model import EgressOrder, OrderKind, Scope, ScopeKind

__all__ = ["MOST_ORDERS", "OrderStore"]

MOST_ORDERS = 1024
_FORMAT = "clawback-egress-order/1"
_ORDER = TypeAdapter(EgressOrder)
_log = structlog.get_logger()


class OrderStore:
    """`STATE/orders/ID.json`, one file for each order, mode 0600; the files are the truth, memory only a copy.

    A file that cannot be read, or is not as it was written, stands as an order that denies everything to everybody,
    until it is lifted or given anew: what it denied is not known, and damage is no permission. One writer at a time.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        found: dict[str, tuple[Path, EgressOrder]] = {}
        for path in sorted(folder.glob("*.json")):
            order = _read(path)
            found[order.id] = path, order
        self._standing = found
        durable.sweep(folder)

    def all(self) -> tuple[EgressOrder, ...]:
        """Every order that stands, oldest first."""
        return tuple(sorted((order for _, order in self._standing.values()), key=lambda one: (one.placed_ns, one.id)))

    def put(self, order: EgressOrder) -> EgressOrder:
        """Have it stand, durably when this returns; the standing one, where it stands already.

        `InvalidInput` for one that is not sound, `Refused` where the id is another order's or there are too many,
        `NotEnforced` where it could not be written.
        """
        order = checked(order)
        known = self._standing.get(order.id)
        if known is not None and known[1].kind is not OrderKind.DAMAGED:
            if known[1].same != order.same:
                raise Refused(f"order {order.id} stands already and denies {known[1].what}", hint="choose another id")
            return known[1]
        if known is None and len(self._standing) >= MOST_ORDERS:
            raise Refused(f"{MOST_ORDERS} orders stand already", hint="lift those that are over: clawback orders list")
        path = self._folder / f"{order.id}.json"
        try:
            durable.write(path, _FORMAT, _ORDER.dump_json(order))
        except OSError as error:
            raise NotEnforced(
                f"order {order.id} could not be written to disk: {error.strerror}", hint="make room there, and repeat"
            ) from None
        self._standing = {**self._standing, order.id: (path, order)}
        return order

    def lift(self, order: str) -> EgressOrder | None:
        """End it, durably when this returns; None where none of that id stands."""
        known = self._standing.get(order)
        if known is None:
            return None
        try:
            durable.remove(known[0])
        except OSError as error:
            raise NotEnforced(
                f"order {order} could not be taken off the disk: {error.strerror}", hint="it stands on; see there"
            ) from None
        self._standing = {name: one for name, one in self._standing.items() if name != order}
        return known[1]


def _read(path: Path) -> EgressOrder:
    try:
        order = checked(_ORDER.validate_json(durable.read(path, _FORMAT)))
        if order.id == path.stem:
            return order
        why = f"it is order {order.id}'s"
    except (ClawbackError, ValidationError) as error:
        why = error.message if isinstance(error, ClawbackError) else "it is not an order"
    _log.error("order unreadable: everything is denied until it is lifted or given anew", file=str(path), why=why)
    name = path.stem if ID.fullmatch(path.stem) else f"damaged.{hashlib.sha256(path.name.encode()).hexdigest()[:12]}"
    return EgressOrder(id=name, kind=OrderKind.DAMAGED, scope=Scope(ScopeKind.ALL), reason=why[:500], by="gateway")
