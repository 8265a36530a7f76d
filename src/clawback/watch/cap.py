"""The cap on automatic containment: so many agents in any minute; what comes beyond waits, and is not lost.

A detector that errs must not take a whole fleet away. The count is kept in memory, for the reflex has no time to ask,
and is read anew from the journal by `look`: so it outlives a restart, and holds among all watches of one journal, to
within the time between two looks. Drills are not counted and not held up.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass

from clawback.journal import Journal
from clawback.model import Finding, Override

__all__ = ["AUTOMATION", "Cap", "Waiting"]

AUTOMATION = ("watch", "responder")  # whose containments count
_MINUTE = 60.0
_OVERLAP_NS = 10 * 1_000_000_000
_MOST_WAITING = 100_000


@dataclass(frozen=True, slots=True)
class Waiting:
    """A reflex that was withheld: its incident, and the finding that asks for it."""

    incident: str
    finding: Finding


class Cap:
    """Thread-safe. `per_minute` is what is configured, 0 for no limit; an override of the journal's stands instead."""

    def __init__(self, per_minute: int) -> None:
        self.configured = per_minute
        self.withheld = 0
        self.override: Override | None = None
        self._lock = threading.Lock()
        self._looked_ns = 0
        self._recent: dict[str, float] = {}  # agent → when it was last contained, by the monotonic clock
        self._waiting: dict[str, Finding] = {}

    @property
    def per_minute(self) -> int:
        """What stands now."""
        override = self.override
        if override is not None and time.time_ns() < override.until_ns:
            return override.per_minute
        return self.configured

    @property
    def waiting(self) -> int:
        """How many agents wait."""
        with self._lock:
            return len(self._waiting)

    def look(self, journal: Journal) -> None:
        """Take in what the journal has: overrides, and containments by this watch's former life and by others."""
        now_ns, now = time.time_ns(), time.monotonic()
        override = journal.overridden()
        # What was read before is remembered; only the newest need be read again, which another writes a moment late.
        since = min(now_ns, self._looked_ns) - _OVERLAP_NS if self._looked_ns else now_ns - round(_MINUTE * 1e9)
        found = journal.contained(since, AUTOMATION)
        with self._lock:
            self._looked_ns = now_ns
            self.override = override
            for agent, at_ns in found:
                # A clock that was set back in between must not make the minute longer.
                age = min(max(0.0, (now_ns - at_ns) / 1e9), _MINUTE)
                self._recent[agent] = max(self._recent.get(agent, now - age), now - age)
            self._recent = {agent: at for agent, at in self._recent.items() if now - at < _MINUTE}

    def admit(self, agent: str) -> bool:
        """Whether this agent may be contained now; then it counts."""
        limit, now = self.per_minute, time.monotonic()
        with self._lock:
            at = self._recent.get(agent)
            if limit and (at is None or now - at >= _MINUTE) and self._count(now) >= limit:
                return False
            self._recent[agent] = now
            return True

    def counts(self, agent: str) -> bool:
        """Whether it was contained within the minute."""
        with self._lock:
            at = self._recent.get(agent)
        return at is not None and time.monotonic() - at < _MINUTE

    def forget(self, agent: str) -> None:
        """It was not contained after all."""
        with self._lock:
            self._recent.pop(agent, None)

    def hold_back(self, incident: str, finding: Finding) -> None:
        """Keep it for later. The worst finding of an incident speaks for it."""
        with self._lock:
            known = self._waiting.get(incident)
            if known is None and len(self._waiting) >= _MOST_WAITING:
                return  # the journal has it, and the next start finds it there
            if known is None or finding.severity > known.severity:
                self._waiting[incident] = finding

    def drop(self, incident: str) -> None:
        """It waits no longer."""
        with self._lock:
            self._waiting.pop(incident, None)

    def all_waiting(self) -> tuple[Waiting, ...]:
        """What waits, the most severe first, then the oldest."""
        with self._lock:
            order = sorted(self._waiting.items(), key=lambda item: (-item[1].severity, item[1].time_ns))
        return tuple(Waiting(incident, finding) for incident, finding in order)

    def due(self) -> tuple[Waiting, ...]:
        """Take out those that there is room for now."""
        limit = self.per_minute
        with self._lock:
            room = len(self._waiting) if not limit else max(0, limit - self._count(time.monotonic()))
        due = self.all_waiting()[:room]
        for one in due:
            self.drop(one.incident)
        return due

    def _count(self, now: float) -> int:
        return sum(now - at < _MINUTE for at in self._recent.values())
