"""How far each halt is, agent by agent, while it is carried out and for a while after."""

from __future__ import annotations

import threading
from dataclasses import dataclass, replace

from clawback.model import HaltedAgent, HaltReport, LevelResult

__all__ = ["HaltReports"]

_KEPT = 32


@dataclass(slots=True)
class _Kept:
    report: HaltReport
    agents: dict[str, HaltedAgent]


class HaltReports:
    """Thread-safe, in memory, of the last 32 halts."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kept: dict[str, _Kept] = {}

    def add(self, report: HaltReport) -> None:
        """Begin."""
        with self._lock:
            self._kept[report.halt.id] = _Kept(report, {one.agent: one for one in report.agents})
            while len(self._kept) > _KEPT:
                del self._kept[next(iter(self._kept))]

    def note(self, halt: str, agent: str, result: LevelResult) -> None:
        """One more level of one agent is done."""
        with self._lock:
            kept = self._kept.get(halt)
            if kept is not None and (one := kept.agents.get(agent)):
                kept.agents[agent] = replace(
                    one,
                    results=(*one.results, result),
                    pending=tuple(level for level in one.pending if level is not result.level),
                )

    def get(self, halt: str) -> HaltReport | None:
        """As it stands now."""
        with self._lock:
            kept = self._kept.get(halt)
            return replace(kept.report, agents=tuple(kept.agents.values())) if kept else None

    def drop(self, halt: str) -> None:
        """It was lifted."""
        with self._lock:
            self._kept.pop(halt, None)
