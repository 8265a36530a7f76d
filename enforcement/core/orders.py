"""Orders on an agent that exists: contain, release, and the keeper's look whether a hold still holds."""

from __future__ import annotations

import time
from collections.abc import Sequence

from clawback.enforcement.core.levels import Levels
from clawback.enforcement.core.parts import Parts
from clawback.enforcement.quarantine import freeze
from clawback.errors import Refused
from clawback.model import Enforcement, Level, LevelResult, Lifecycle, Severity

__all__ = ["Orders"]

_AT_ONCE = frozenset({Level.FREEZE, Level.ISOLATE})
_RANK = {Enforcement.NONE: 0, Enforcement.PARTIAL: 1, Enforcement.FULL: 2}


class Orders:
    """Thread-safe. Freezing and isolating wait for nothing; whatever may take long waits for its turn at the agent."""

    def __init__(self, parts: Parts, levels: Levels) -> None:
        self._parts = parts
        self._levels = levels

    def contain(
        self, agent: str, level: Level, *, instance: str = "", reason: str, by: str, incident: str = ""
    ) -> LevelResult:
        """Make one level true: the hold first, durably, then the kernel.

        Freezing alone is the other way round, because writing the hold takes longer than all the rest, and a core that
        dies between the two leaves an agent frozen: the next core holds what it finds so.
        """
        began = time.perf_counter()
        parts = self._parts
        entry = parts.entry(agent, instance=instance)
        if level is Level.FREEZE:
            freeze.strike(entry.box)
        with parts.orders:
            entry.orders += 1
            parts.holds.add(agent, level, reason=reason, by=by, incident=incident, at_ns=time.time_ns())
        if level in _AT_ONCE:
            result = self._levels.apply(entry, level)
        else:
            with parts.slow[agent]:
                result = self._levels.apply(entry, level)
        entry.enforced[level] = result.enforcement
        parts.metrics.contained(result, time.perf_counter() - began)
        parts.say(
            Lifecycle.OTHER, "hold", f"{level.word} {result.enforcement}", entry, message=f"by {by}: {result.observed}"
        )
        return result

    def release(self, agent: str, *, levels: Sequence[Level] = (), reason: str, by: str) -> tuple[LevelResult, ...]:
        """Undo levels, the highest first; the order is lifted only after the kernel was, so that a crash keeps it."""
        parts = self._parts
        entry = parts.entry(agent)
        with parts.slow[agent]:
            orders = entry.orders
            hold = parts.holds.get(agent)
            chosen = sorted(set(levels or (hold.levels if hold else ())), reverse=True)
            results = tuple(self._levels.undo(entry, level) for level in chosen)
            with parts.orders:
                overtaken = entry.orders != orders
                if not overtaken:
                    parts.holds.remove(agent, tuple(chosen))
                    for level in chosen:
                        entry.enforced.pop(level, None)
            if overtaken:
                hold = parts.holds.get(agent)
                if hold is not None:
                    self._levels.assert_hold(entry, hold)
                raise Refused(f"{agent} was ordered held again during its release", hint="look at the new order first")
        words = ", ".join(f"{result.level.word} {result.enforcement}" for result in results)
        parts.say(Lifecycle.OTHER, "hold", "released", entry, message=f"by {by}: {reason}; still: {words}")
        return results

    def keep(self, agent: str) -> None:
        """Verify one hold, and assert it again if less of it holds than did. Skipped while a slow order runs."""
        parts = self._parts
        entry = parts.entries.get(agent)
        if entry is None or not entry.running or not parts.slow[agent].acquire(blocking=False):
            return
        try:
            hold = parts.holds.get(agent)
            for level in hold.levels if hold else ():
                before = entry.enforced.get(level, Enforcement.FULL)
                seen = self._levels.probe(entry, level)
                if _RANK[seen.enforcement] >= _RANK[before] or not entry.running:
                    continue
                result = self._levels.apply(entry, level)
                parts.metrics.drifts.inc()
                parts.say(
                    Lifecycle.OTHER,
                    "hold",
                    f"{level.word} reasserted: {result.enforcement}",
                    entry,
                    severity=Severity.HIGH,
                    message=f"found: {seen.observed}",
                )
        finally:
            parts.slow[agent].release()
