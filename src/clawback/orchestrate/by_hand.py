"""The finding that a person's launch stands for."""

from __future__ import annotations

import time
from uuid import UUID

from clawback.model import Finding, Level, Severity

__all__ = ["BY_HAND", "by_hand"]

BY_HAND = "launched.by-hand"


def by_hand(agent: str, instance: str, run: UUID, reason: str) -> Finding:
    """Whoever launches a response for an agent asks for its containment: that can be taken back, and comes first."""
    return Finding(
        detector=BY_HAND,
        agent=agent,
        instance=instance,
        severity=Severity.HIGH,
        technique="none",
        resource=str(run),
        policy="",
        policy_version=0,
        title="launched by hand",
        summary=f"by prefect:shared: {reason or 'no reason given'}",
        time_ns=time.time_ns(),
        events=(f"prefect/flow-run/{run}",),
        reflex=Level.ISOLATE,
    )
