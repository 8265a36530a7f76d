"""The ladder as the core applies it: one level of one agent, and the gateway where the kernel way leaves it open."""

from __future__ import annotations

import dataclasses
import time

import structlog

from clawback.enforcement.core.entry import Entry
from clawback.enforcement.core.parts import Parts
from clawback.enforcement.core.terms import Terms, terms
from clawback.enforcement.quarantine import freeze, ladder, responders
from clawback.model import Enforcement, Hold, Level, LevelResult

__all__ = ["Levels"]

_log = structlog.get_logger()


class Levels:
    """Apply, probe and undo. Knows nothing of holds but how to make one true."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    def apply(self, entry: Entry, level: Level, letting: Terms | None = None) -> LevelResult:
        """Make a level true; what was then seen. `letting` through what the hold does, where nothing else is given."""
        hold = self._parts.hold(entry.box.agent)
        letting = letting or terms(hold.orders if hold else ())
        if level in {Level.RESTRICT, Level.SEAL} and hold is not None and Level.FREEZE in hold.levels:
            freeze.order(entry.box)  # what thaws the agent on its way has to find it, whoever froze it and how
        if level is Level.ISOLATE and (letting.allow or responders.ordered(entry.box)):
            self._parts.link.suspend(entry.box.instance)  # a relay takes the gateway's place, after a restart too
        result = ladder.apply(
            entry.box, level, run=self._parts.spawner.run, allow=letting.allow, readable=letting.readable
        )
        if level is Level.ISOLATE and result.enforcement is Enforcement.NONE:
            # The namespace could not be entered. Its one way out can be closed from the outside all the same.
            self._parts.link.suspend(entry.box.instance)
            return self._by_gateway(entry, result)
        return result

    def probe(self, entry: Entry, level: Level) -> LevelResult:
        """Read a level back; changes nothing."""
        result = ladder.probe(entry.box, level, run=self._parts.spawner.run)
        return self._by_gateway(entry, result) if level is Level.ISOLATE else result

    def undo(self, entry: Entry, level: Level) -> LevelResult:
        """Release a level; how much of it still holds."""
        result = ladder.release(entry.box, level, run=self._parts.spawner.run)
        if level is Level.ISOLATE:
            self._parts.link.resume(entry.box.instance)
        return result

    def assert_hold(self, entry: Entry, hold: Hold) -> None:
        """Make every level of a hold true, as at a start; what is short of full is logged."""
        for level in hold.levels:
            result = self.apply(entry, level)
            entry.enforced[level] = result.enforcement
            if result.enforcement is not Enforcement.FULL:
                _log.warning("hold not in full", agent=hold.agent, level=level.word, missing=result.missing)

    def _by_gateway(self, entry: Entry, result: LevelResult) -> LevelResult:
        if result.enforcement is not Enforcement.NONE or not self._parts.link.suspended(entry.box.instance):
            return result
        return dataclasses.replace(
            result,
            enforcement=Enforcement.PARTIAL,
            observed="no gateway serves its only way out, and its connections were reset; inside, loopback is up",
            missing=(result.observed,),
            at_ns=time.time_ns(),
        )
