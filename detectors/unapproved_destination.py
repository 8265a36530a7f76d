"""An agent keeps trying to reach a destination that its policy refuses."""

from __future__ import annotations

from collections import OrderedDict, deque

from clawback.detector import Hit, detector
from clawback.model import HttpActivity, NetworkActivity, Severity

__all__ = ["DETECTOR"]

TIMES = 3
WITHIN_NS = 3_600 * 1_000_000_000
_DESTINATIONS = 256


class Refusals:
    """The last refusals of each destination tried last."""

    __slots__ = ("by_target",)

    def __init__(self) -> None:
        self.by_target: OrderedDict[str, deque[tuple[int, str]]] = OrderedDict()


@detector(
    id="policy.unapproved-destination",
    title="Repeated attempts at an unapproved destination",
    reads={NetworkActivity, HttpActivity},
    severity=Severity.MEDIUM,
    technique="T1071",
    attack=("T1071.001", "T1041"),
    atlas=("AML.T0053",),
    asi=("ASI02",),
    seed_asi=("ASI-01",),
    memory=Refusals,
)
def unapproved_destination(event: NetworkActivity | HttpActivity, refused: Refusals) -> Hit | None:
    """Three refusals of one host and port within an hour. Nothing got out, and a wrong rule looks the same: the alert
    asks for no reflex and joins the incident, if there is one.
    """
    if not event.blocked:
        return None
    target = f"{event.host.lower().rstrip('.')}:{event.port}"
    times = refused.by_target.pop(target, None)
    if times is None:
        times = deque(maxlen=2 * TIMES)
    refused.by_target[target] = times
    if len(refused.by_target) > _DESTINATIONS:
        refused.by_target.popitem(last=False)
    times.append((event.time_ns, event.uid))
    window = [uid for at, uid in times if event.time_ns - WITHIN_NS < at <= event.time_ns]
    if len(window) < TIMES:
        return None
    return Hit(
        resource=target,
        summary=f"{TIMES} refused attempts at {target} within an hour",
        events=tuple(window[-TIMES:-1]),
        attempts=(("connect", target),),
    )


DETECTOR = unapproved_destination
