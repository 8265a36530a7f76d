"""Another product alerts about an agent's host or its people, and the agent does what it was refused: two witnesses."""

from __future__ import annotations

from collections import deque

from clawback.detector import Hit, detector
from clawback.model import (
    Event,
    ExternalAlert,
    FileActivity,
    HttpActivity,
    KernelActivity,
    Level,
    NetworkActivity,
    Severity,
)

__all__ = ["DETECTOR"]

WITHIN_NS = 3_600 * 1_000_000_000
REFUSALS = 3  # one is a retry, or a mistake
_KEPT = 16
_Refused = FileActivity | HttpActivity | KernelActivity | NetworkActivity


class Witnesses:
    """The latest alerts from outside, and the latest refusals."""

    __slots__ = ("alerts", "refusals")

    def __init__(self) -> None:
        self.alerts: deque[ExternalAlert] = deque(maxlen=_KEPT)
        self.refusals: deque[tuple[int, str]] = deque(maxlen=_KEPT)


@detector(
    id="intrusion.host-and-agent",
    title="Intrusion on an agent's host, and the agent misbehaves",
    reads={ExternalAlert, FileActivity, HttpActivity, KernelActivity, NetworkActivity},
    severity=Severity.CRITICAL,
    technique="T1199",
    reflex=Level.ISOLATE,
    attack=("T1199", "T1566", "T1078"),
    atlas=("AML.T0012", "AML.T0053"),
    asi=("ASI03", "ASI10"),
    seed_asi=("ASI-02",),
    memory=Witnesses,
)
def hybrid_intrusion(event: ExternalAlert | _Refused, seen: Witnesses) -> Hit | None:
    """In either order, within an hour: an alert of severity medium or more that names the agent's host or somebody who
    works with it, and three refusals of the agent's own. Each alone is somebody else's alert, or a small matter.
    """
    if isinstance(event, ExternalAlert):
        if event.severity < Severity.MEDIUM:
            return None
        seen.alerts.append(event)
    elif event.blocked:
        seen.refusals.append((event.time_ns, event.uid))
    else:
        return None
    refusals = [uid for at, uid in seen.refusals if _near(at, event)]
    alert = next((one for one in reversed(seen.alerts) if _near(one.time_ns, event)), None)
    if alert is None or len(refusals) < REFUSALS:
        return None
    about = " and ".join(part for part in (alert.host, alert.user) if part) or "an unnamed host"
    return Hit(
        resource=alert.alert or alert.title,
        summary=f"{alert.product} alerts about {about}: {alert.title}; the agent was refused {len(refusals)} times "
        "within the hour",
        events=tuple(uid for uid in (alert.uid, *refusals) if uid != event.uid)[-16:],
    )


def _near(at_ns: int, event: Event) -> bool:
    return abs(event.time_ns - at_ns) < WITHIN_NS  # an alert may come late, with the time at which it was seen


DETECTOR = hybrid_intrusion
