"""An agent's sandbox is gone without having been stopped, or is not what it was."""

from __future__ import annotations

from clawback.detector import Hit, Stateless, detector
from clawback.model import Level, Lifecycle, Severity

__all__ = ["DETECTOR"]

_PARTS = frozenset({"sandbox", "shim"})
_BROKEN = frozenset({"crashed", "failed", "lost", "tampered"})


@detector(
    id="sandbox.down",
    title="Sandbox down",
    reads={Lifecycle},
    severity=Severity.CRITICAL,
    technique="T1489",
    reflex=Level.ISOLATE,
    attack=("T1489", "T1611"),
    atlas=("AML.T0105",),
    asi=("ASI05", "ASI10"),
    seed_asi=("ASI-06",),
)
def sandbox_down(event: Lifecycle, _memory: Stateless) -> Hit | None:
    """Any crash, and protections that the core no longer finds as they were at launch. An agent that ended by itself,
    whatever its exit status, or was stopped is no crash of its sandbox.
    """
    if not event.agent or event.component not in _PARTS or event.status not in _BROKEN:
        return None
    return Hit(
        resource=f"{event.component} {event.status}",
        summary=f"the agent's {event.component} is {event.status}" + (f": {event.message}" if event.message else ""),
    )


DETECTOR = sandbox_down
