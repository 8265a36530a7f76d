"""The privacy router let confidential or restricted data go to a cloud model."""

from __future__ import annotations

from clawback.detector import Hit, Stateless, detector
from clawback.model import Level, RouteActivity, Sensitivity, Severity

__all__ = ["DETECTOR"]

_SENSITIVE = frozenset({Sensitivity.CONFIDENTIAL, Sensitivity.RESTRICTED})


@detector(
    id="routing.sensitive-to-cloud",
    title="Sensitive data routed to a cloud model",
    reads={RouteActivity},
    severity=Severity.CRITICAL,
    technique="AML.T0057",
    reflex=Level.ISOLATE,
    attack=("T1567",),
    atlas=("AML.T0057",),
    asi=("ASI02",),
    seed_asi=("ASI-09",),
)
def sensitive_to_cloud(event: RouteActivity, _memory: Stateless) -> Hit | None:
    """Any occurrence. A query that the router refused never left, and is no hit; a low confidence is no excuse."""
    if event.blocked or event.destination != "cloud" or event.sensitivity not in _SENSITIVE:
        return None
    kinds = ", ".join(event.data_types) or "unnamed kinds"
    return Hit(
        resource=f"{event.model}@{event.endpoint}",
        summary=f"{event.sensitivity} data ({kinds}) routed to the cloud model {event.model}",
    )


DETECTOR = sensitive_to_cloud
