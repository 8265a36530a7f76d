"""What the core says of itself: its threads, its telemetry, its gateway, and the numbers for Prometheus."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

from clawback.enforcement.core import descriptors
from clawback.enforcement.core.parts import Parts
from clawback.model import AgentState

__all__ = ["Health"]


class Health:
    """`threads` is name → whether it runs."""

    def __init__(self, parts: Parts, threads: Mapping[str, Callable[[], bool]]) -> None:
        self._parts = parts
        self._threads = threads
        self._since = time.time_ns()

    def read(self) -> dict[str, Any]:
        """What `/healthz` says."""
        parts = self._parts
        sources = parts.telemetry.sources
        running = [entry for entry in parts.entries.copy().values() if entry.running]
        unattached = [entry.box.agent for entry in running if not parts.link.attached(entry.box.instance)]
        ended = sorted(name for name, alive in self._threads.items() if not alive())
        files = descriptors.read()
        return {
            "status": "degraded" if ended or files.tight else "ok",
            "ended_threads": ended,
            "since_ns": self._since,
            "agents": len(running),
            "descriptors": asdict(files),
            "held": len(parts.holds.all()),
            "halts": len(parts.halts.all()),
            "due": sum(order.due for hold in parts.holds.all() for order in hold.orders)
            + sum(halt.order.due for halt in parts.halts.all()),
            "damaged": sorted((*parts.holds.damaged, *parts.halts.damaged)),
            "telemetry": dict(sources),
            "telemetry_missing": sorted(name for name, why in sources.items() if why != "on"),
            "telemetry_lost": parts.telemetry.writer.lost_total,
            "gateway": "connected" if parts.link.connected else "absent",
            "without_gateway": unattached[:100],
            "supervisor": parts.supervision.state,
        }

    def count(self) -> tuple[dict[str, int], dict[str, int], dict[str, int], int]:
        """`metrics.Snapshot`."""
        parts = self._parts
        writer = parts.telemetry.writer
        states = {state.value: 0 for state in AgentState} | {"held": len(parts.holds.all())}
        violations = {}
        for name, entry in parts.entries.copy().items():
            states[entry.state.value] += 1
            if entry.running:
                violations[name] = writer.violations.last_hour(name)
        return states, violations, writer.losses, writer.written
