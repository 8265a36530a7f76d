"""Holds: durable orders that agents stay contained, each with whoever gave it; and orders for many agents at once."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from clawback.model.level import Level, LevelResult

__all__ = ["Halt", "HaltReport", "HaltedAgent", "Hold", "Order", "Quarantining", "Selector", "SelectorKind"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """One holder's part of a hold: released apart from the others'.

    uid      the user that the kernel saw giving it, -1 for the core itself; `by` is what that user called itself
    due_ns   when it wants looking at again, 0 for never. Passing it lifts nothing: the order becomes `due`
    halt     the id of the halt that it comes from; empty for an order on this agent alone
    allow    responders, `ADDRESS:PORT`, that its isolation leaves open; None: nothing was said, and none is open
    readable paths, with what is below them, that its restriction lets the agent open; None likewise
    """

    levels: tuple[Level, ...]
    reason: str
    by: str
    uid: int = -1
    incident: str = ""
    placed_ns: int = 0
    due_ns: int = 0
    due: bool = False
    halt: str = ""
    allow: tuple[str, ...] | None = None
    readable: tuple[str, ...] | None = None

    @property
    def holder(self) -> str:
        """In words, as releases name it: the halt, the incident, or else who gave it."""
        return self.halt or self.incident or self.by


@dataclass(frozen=True, slots=True, kw_only=True)
class Quarantining:
    """An order for one agent among many: freeze, isolate, or both, of the instance that is meant."""

    agent: str
    instance: str
    levels: tuple[Level, ...]
    reason: str
    incident: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Hold:
    """A durable order that an agent be kept at some levels, surviving the core, the host and the agent itself.

    `levels` are those of all `orders` together; `reason`, `by`, `incident` and `placed_ns` are the first order's.
    """

    agent: str
    levels: tuple[Level, ...]
    reason: str
    by: str
    incident: str = ""
    placed_ns: int = 0
    orders: tuple[Order, ...] = ()

    @classmethod
    def of(cls, agent: str, orders: tuple[Order, ...]) -> Hold | None:
        """All orders on an agent as one hold; None where there are none."""
        if not orders:
            return None
        first = min(orders, key=lambda order: order.placed_ns)
        return cls(
            agent=agent,
            levels=tuple(sorted({level for order in orders for level in order.levels})),
            reason=first.reason,
            by=first.by,
            incident=next((order.incident for order in orders if order.incident), ""),
            placed_ns=first.placed_ns,
            orders=orders,
        )


class SelectorKind(StrEnum):
    """What a halt goes by."""

    ALL = "all"
    TENANT = "tenant"
    TEAM = "team"
    TAG = "tag"
    TREE = "tree"


@dataclass(frozen=True, slots=True, kw_only=True)
class Selector:
    """Which agents: all, those of a tenant or team, those with a tag (as written at the launch, such as `env=prod`), or
    an agent with all that work for it.
    """

    kind: SelectorKind
    value: str = ""

    def __str__(self) -> str:
        return f"{self.kind} {self.value}".rstrip()


@dataclass(frozen=True, slots=True, kw_only=True)
class Halt:
    """A standing order for every agent that it matches, those started later too: they are refused."""

    id: str
    selector: Selector
    order: Order


@dataclass(frozen=True, slots=True, kw_only=True)
class HaltedAgent:
    """What the halt came to for one agent so far; `pending` are levels under way or still to come."""

    agent: str
    instance: str
    results: tuple[LevelResult, ...] = ()
    pending: tuple[Level, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class HaltReport:
    """A halt and its agents. Milliseconds from the order: until the kernel was told to freeze the last agent
    (`struck_ms`), until the order was durable, until each agent's state had been read back.
    """

    halt: Halt
    agents: tuple[HaltedAgent, ...] = field(default=())
    struck_ms: float = 0.0
    durable_ms: float = 0.0
    verified_ms: float = 0.0
