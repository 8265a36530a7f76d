"""Orders on an agent that exists: contain, release, and the keeper's look whether a hold still holds."""

from __future__ import annotations

import dataclasses
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import structlog

from clawback.enforcement.core import mass_freeze
from clawback.enforcement.core.entry import Entry
from clawback.enforcement.core.holds import FOUND
from clawback.enforcement.core.levels import Levels
from clawback.enforcement.core.parts import Parts
from clawback.enforcement.core.terms import checked, terms
from clawback.enforcement.core.turns import Turns
from clawback.enforcement.quarantine import freeze
from clawback.errors import ClawbackError, InvalidInput, NotFound, Refused
from clawback.model import Enforcement, Level, LevelResult, Lifecycle, Order, Quarantine, Quarantining, Severity

__all__ = ["SETTLE_SECONDS", "Orders"]

SETTLE_SECONDS = 0.05
"""How long a freeze waits for a start to end that is under way: a sandbox frozen before its command is there would
leave the start hanging. Past it the agent is frozen all the same."""

_log = structlog.get_logger()
_PATIENCE = 1.0  # seconds that an order for many lets another one for many go first
_AT_ONCE = frozenset({Level.FREEZE, Level.ISOLATE})
_RANK = {Enforcement.NONE: 0, Enforcement.PARTIAL: 1, Enforcement.FULL: 2}


class Orders:
    """Thread-safe. A freeze is told to the kernel before anything is waited for; whatever may take long waits for its
    turn at the agent.
    """

    def __init__(self, parts: Parts, levels: Levels) -> None:
        self._parts = parts
        self._levels = levels
        self._turns = Turns()
        self._many = threading.Lock()

    @property
    def busy(self) -> bool:
        """An agent is being quarantined."""
        return self._turns.busy

    def contain(
        self,
        agent: str,
        level: Level,
        *,
        instance: str = "",
        reason: str,
        by: str,
        uid: int,
        incident: str = "",
        due_ns: int = 0,
        allow: tuple[str, ...] | None = None,
        readable: tuple[str, ...] | None = None,
    ) -> LevelResult:
        """Make one level true: the hold first, durably, then the kernel. `allow` and `readable` as in `Order`.

        Freezing alone is the other way round, because writing the hold takes longer than all the rest, and a core that
        dies between the two leaves an agent frozen: the next core holds what it finds so.
        """
        began = time.perf_counter()
        allow, readable = checked(level, allow, readable)
        order = Order(
            levels=(level,),
            reason=reason,
            by=by,
            uid=uid,
            incident=incident,
            placed_ns=time.time_ns(),
            due_ns=due_ns,
            allow=allow,
            readable=readable,
        )
        return self._make(self._placed(agent, instance, order), level, by, began)

    def quarantine(
        self,
        agent: str,
        levels: Sequence[Level],
        *,
        instance: str = "",
        reason: str,
        by: str,
        uid: int,
        incident: str = "",
    ) -> Quarantine:
        """Freeze, isolate, or both, by one order that is flushed once, each seen to hold when both had been made true.

        What a reflex does: as two orders and two looks it would take twice as long, with the agents of a storm waiting.
        Isolation comes last and ends with its look from inside, which is looked at once more only if it was short.
        """
        began = time.perf_counter()
        entry = self._placed(agent, instance, _at_once(levels, reason, by, uid, incident))
        with self._turns.turn():
            return self._make_all(entry, by, began, levels)

    def quarantine_many(self, orders: Sequence[Quarantining], *, by: str, uid: int) -> tuple[Quarantine, ...]:
        """The same for many agents, with one flush for all their holds and the kernel told to freeze all of them first.

        Who is not in the answer was not held by this: not there, another instance by now, just being started.
        `quarantine` says which.
        """
        began = time.perf_counter()
        parts = self._parts
        meant: dict[str, tuple[Entry, Order]] = {}
        for one in orders:
            order = _at_once(one.levels, one.reason, by, uid, one.incident)
            entry = parts.entries.get(one.agent)
            if entry is not None and entry.box.instance == one.instance and entry.running and entry.settled.is_set():
                meant[one.agent] = (entry, order)
        if not meant:
            return ()
        mass_freeze.strike([entry for entry, order in meant.values() if Level.FREEZE in order.levels])
        with parts.orders:
            for entry, _ in meant.values():
                entry.orders += 1
            parts.holds.place_many({agent: order for agent, (_, order) in meant.items()})
        made: list[Quarantine] = []
        with self._many_in_line():
            for agent, (entry, order) in meant.items():
                try:
                    with self._turns.turn():
                        made.append(self._make_all(entry, by, began, order.levels))
                except (ClawbackError, OSError):
                    _log.exception("not quarantined with the others", agent=agent)  # held, and not said to be
        return tuple(made)

    @contextmanager
    def _many_in_line(self) -> Iterator[None]:
        """One order for many after the other, unless one takes very long: all of them are frozen by now."""
        mine = self._many.acquire(timeout=_PATIENCE)
        try:
            yield
        finally:
            if mine:
                self._many.release()

    def _make_all(self, entry: Entry, by: str, began: float, levels: Sequence[Level]) -> Quarantine:
        """Carry out what was placed, look at each, and say so."""
        applied = tuple(self._make(entry, level, by, began) for level in sorted(set(levels)))
        seen = tuple(
            result
            if result.level is Level.ISOLATE and result.enforcement is Enforcement.FULL
            else self._levels.probe(entry, result.level)
            for result in applied
        )
        return Quarantine(agent=self._parts.agent(entry.box.agent), applied=applied, seen=seen)

    def _placed(self, agent: str, instance: str, order: Order) -> Entry:
        """Put the order on record, and freeze before that where it says so."""
        parts = self._parts
        entry = parts.entry(agent, instance=instance)
        if not entry.settled.is_set():
            entry.settled.wait(SETTLE_SECONDS)
        if Level.FREEZE in order.levels:
            freeze.strike(entry.box)
        with parts.orders:
            entry.orders += 1
            parts.holds.place(agent, order)
        return entry

    def _make(self, entry: Entry, level: Level, by: str, began: float) -> LevelResult:
        """Carry out what was placed, and say so."""
        result = self.carry_out(entry, level)
        self._parts.metrics.contained(result, time.perf_counter() - began)
        self._parts.say(
            Lifecycle.OTHER, "hold", f"{level.word} {result.enforcement}", entry, message=f"by {by}: {result.observed}"
        )
        return result

    def carry_out(self, entry: Entry, level: Level) -> LevelResult:
        """Make true what is ordered already."""
        if level in _AT_ONCE:
            result = self._levels.apply(entry, level)
        else:
            with self._parts.slow[entry.box.agent]:
                result = self._levels.apply(entry, level)
        entry.enforced[level] = result.enforcement
        return result

    def release(
        self,
        agent: str,
        *,
        levels: Sequence[Level] = (),
        reason: str,
        by: str,
        uid: int,
        incident: str = "",
        everyone: bool = False,
    ) -> tuple[LevelResult, ...]:
        """Lift one holder's order. Levels that another holder orders stay.

        With an incident: its own, and what was ordered by hand without naming any, which belongs to whoever works on
        the agent. Without: that of the one holder there is. With `everyone`: all.

        The highest level first, and the order is lifted only after the kernel was, so that a crash keeps it.
        `Refused` where several hold it and none is named, where the rules forbid it (which is an event), where a halt
        holds it, and where a new order came meanwhile.
        """
        parts = self._parts
        entry = parts.entries.get(agent)
        if entry is None and parts.holds.get(agent) is None:
            raise NotFound(f"no agent {agent[:64]!r}", hint="clawback agents lists them")
        with parts.slow[agent]:
            count = entry.orders if entry else 0
            mine = self._chosen(agent, incident, everyone=everyone)
            try:
                parts.parameters.release.check(uid, mine, agent)
            except Refused as error:
                self._refused(entry, agent, by, uid, error)
                raise
            ordered = {level for order in mine for level in order.levels}
            chosen = sorted(ordered & set(levels) if levels else ordered, reverse=True)
            results = tuple(self.undo(entry, mine, level) for level in chosen) if entry else ()
            with parts.orders:
                overtaken = entry is not None and entry.orders != count
                if not overtaken:
                    parts.holds.lift(agent, mine, chosen)
            if entry is not None and overtaken:
                if (hold := parts.hold(agent)) is not None:
                    self._levels.assert_hold(entry, hold)
                raise Refused(f"{agent} was ordered held again during its release", hint="look at the new order first")
            left = parts.hold(agent)
            if entry is not None:
                for level in set(chosen) - set(left.levels if left else ()):
                    entry.enforced.pop(level, None)
        words = ", ".join(f"{result.level.word} {result.enforcement}" for result in results)
        others = f"; held on by {', '.join(order.holder for order in left.orders)}" if left else ""
        parts.say(
            Lifecycle.OTHER,
            "hold",
            "released",
            entry,
            message=f"by {by} (user {uid}): {reason}; still: {words}{others}",
        )
        return results

    def keep(self, agent: str) -> bool:
        """Verify one hold, and assert it again if less of it holds than did. Whether all was as it should be, or there
        was nothing to look at. Skipped while a slow order runs.
        """
        parts = self._parts
        entry = parts.entries.get(agent)
        if entry is None or not entry.running or not entry.settled.is_set():
            return True
        if not parts.slow[agent].acquire(blocking=False):
            return True
        sound = True
        try:
            hold = parts.hold(agent)
            for level in hold.levels if hold else ():
                before = entry.enforced.get(level, Enforcement.FULL)
                seen = self._levels.probe(entry, level)
                weaker = _RANK[seen.enforcement] < _RANK[before] or seen.counts.get("drift", 0) > 0
                if not weaker or not entry.running:
                    continue
                sound = False
                result = self._levels.apply(entry, level)
                parts.metrics.drifts.inc()
                found = "; ".join((seen.observed, *seen.missing))
                parts.say(
                    Lifecycle.OTHER,
                    "hold",
                    f"{level.word} reasserted: {result.enforcement}",
                    entry,
                    severity=Severity.HIGH,
                    message=f"found {seen.enforcement} where {before} held: {found}; now: {result.observed}",
                )
        finally:
            parts.slow[agent].release()
        return sound

    def _chosen(self, agent: str, incident: str, *, everyone: bool) -> tuple[Order, ...]:
        own = self._parts.holds.get(agent)
        orders = own.orders if own else ()
        if incident:
            # What the core holds because a file was damaged may have been anybody's: no incident takes it for its own.
            return tuple(order for order in orders if order.incident == incident or _by_hand(order))
        holders = list(dict.fromkeys(order.holder for order in orders))
        if len(holders) > 1 and not everyone:
            raise Refused(
                f"{agent} is held by {len(holders)}: {', '.join(holders)[:300]}",
                hint="name the incident whose hold to lift, or say that it is everyone's",
            )
        halted = self._parts.others(agent, orders)
        if halted and not orders:
            raise Refused(f"{agent} is held by {halted[0].holder}", hint=f"clawback lift {halted[0].halt}")
        return orders

    def undo(self, entry: Entry, mine: Sequence[Order], level: Level) -> LevelResult:
        """Release one level of these orders in the kernel, unless others order it too, who may let more through."""
        others = [one for one in self._parts.others(entry.box.agent, mine) if level in one.levels]
        if not others:
            return self._levels.undo(entry, level)
        if terms(others) != terms((*others, *mine)):
            seen = self._levels.apply(entry, level, terms(others))
        else:
            seen = self._levels.probe(entry, level)
        names = ", ".join(dict.fromkeys(order.holder for order in others))
        return dataclasses.replace(seen, observed=f"still ordered by {names}: {seen.observed}")

    def _refused(self, entry: Entry | None, agent: str, by: str, uid: int, error: Refused) -> None:
        self._parts.say(
            Lifecycle.OTHER,
            "hold",
            "release refused",
            entry,
            severity=Severity.MEDIUM,
            message=f"{agent}: by {by} (user {uid}): {error.message}",
        )


def _at_once(levels: Sequence[Level], reason: str, by: str, uid: int, incident: str) -> Order:
    if not levels or not _AT_ONCE.issuperset(levels):
        raise InvalidInput("levels: freeze, isolate or both", hint="the others are ordered one by one")
    wanted = tuple(sorted(set(levels)))
    return Order(levels=wanted, reason=reason, by=by, uid=uid, incident=incident, placed_ns=time.time_ns())


def _by_hand(order: Order) -> bool:
    return not order.incident and (order.uid >= 0 or order.reason == FOUND)
