"""The local model has not answered for more than five minutes."""

from __future__ import annotations

from datetime import UTC, datetime

from clawback.detector import Hit, detector
from clawback.model import Lifecycle, Severity, Source

__all__ = ["DETECTOR"]

LONGEST_NS = 5 * 60 * 1_000_000_000
_AWAY = frozenset({"unavailable", "crashed", "failed", "lost"})


class Outage:
    """When the model was first reported away, and by which event; 0 while it is there."""

    __slots__ = ("since", "uid")

    def __init__(self) -> None:
        self.since = 0
        self.uid = ""


@detector(
    id="routing.local-model-unavailable",
    title="Local model unavailable",
    reads={Lifecycle},
    severity=Severity.HIGH,
    technique="local-model-unavailable",
    attack=("T1489",),
    atlas=("AML.T0029", "AML.T0057"),
    asi=("ASI08",),
    seed_asi=("ASI-09",),
    memory=Outage,
)
def local_model(event: Lifecycle, outage: Outage) -> Hit | None:
    """By the router's reports of its local model: away at one, and still away at another more than five minutes later,
    with none in between that saw it. A report that is late or a clock that goes back begins no outage anew.
    """
    if event.component != "local-model" or event.source is not Source.ROUTING:
        return None
    if event.status not in _AWAY:
        outage.since, outage.uid = 0, ""
        return None
    if not outage.since:
        outage.since, outage.uid = event.time_ns, event.uid
    away = event.time_ns - outage.since
    if away <= LONGEST_NS:
        return None
    return Hit(
        resource=f"local model since {datetime.fromtimestamp(outage.since // 10**9, UTC):%Y-%m-%dT%H:%M:%SZ}",
        summary=f"the local model has been {event.status} for {away / 60e9:.1f} minutes"
        + (f": {event.message}" if event.message else ""),
        events=(outage.uid,),
    )


DETECTOR = local_model
