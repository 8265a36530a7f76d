"""More than 20 refused system calls, files, requests or connections by one agent within an hour."""

from __future__ import annotations

from collections import deque

from clawback.detector import Hit, detector
from clawback.model import (
    FileActivity,
    HttpActivity,
    KernelActivity,
    Level,
    NetworkActivity,
    Severity,
)

__all__ = ["DETECTOR"]

THRESHOLD = 20  # the source documents' limit; their normal is 0 to 5
HOUR_NS = 3_600 * 1_000_000_000
_KEPT = 64  # more than the threshold, so that a few events with an odd clock cannot crowd out the rest


class Recent:
    """Times and uids of the refusals that came last, in order of arrival."""

    __slots__ = ("seen",)

    def __init__(self) -> None:
        self.seen: deque[tuple[int, str]] = deque(maxlen=_KEPT)


@detector(
    id="sandbox.violation-spike",
    title="Sandbox violation spike",
    reads={FileActivity, KernelActivity, HttpActivity, NetworkActivity},
    severity=Severity.HIGH,
    technique="violation-spike",
    reflex=Level.FREEZE,
    attack=("T1106", "T1611"),
    atlas=("AML.T0053",),
    asi=("ASI01", "ASI02", "ASI10"),
    seed_asi=("ASI-02",),
    memory=Recent,
)
def violation_spike(
    event: FileActivity | KernelActivity | HttpActivity | NetworkActivity, recent: Recent
) -> Hit | None:
    """Counts refusals in the hour before each one, by the events' own times, so that late ones do no harm. The count in
    the core's heartbeats is not used: it is the agent's, and a restored instance would answer for the one before it.
    """
    if not event.blocked:
        return None
    recent.seen.append((event.time_ns, event.uid))
    if len(recent.seen) <= THRESHOLD:
        return None
    earliest = event.time_ns - HOUR_NS
    window = [uid for at, uid in recent.seen if earliest < at <= event.time_ns]
    if len(window) <= THRESHOLD:
        return None
    return Hit(
        resource="violations",
        summary=f"more than {THRESHOLD} violations in an hour",
        events=tuple(window[-THRESHOLD - 1 : -1]),
    )


DETECTOR = violation_spike
