"""An agent's sandbox is gone without having been stopped."""

from __future__ import annotations

from clawback.detector import Hit, Stateless, detector
from clawback.model import Level, Lifecycle, Severity

__all__ = ["DETECTOR"]

_CRASHED = frozenset({"crashed", "failed", "lost"})


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
    """Any crash. An agent that ended by itself, whatever its exit status, or was stopped is no crash of its sandbox."""
    if event.component != "sandbox" or event.status not in _CRASHED:
        return None
    return Hit(resource="sandbox", summary=f"the sandbox is {event.status}")


DETECTOR = sandbox_down
