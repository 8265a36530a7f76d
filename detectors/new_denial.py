"""A system call is refused that this agent was never refused in its first 72 hours."""

from __future__ import annotations

from clawback.detector import Hit, detector
from clawback.model import KernelActivity, Lifecycle, ProcessActivity, Severity

__all__ = ["DETECTOR"]

BASELINE_NS = 72 * 3_600 * 1_000_000_000  # "not seen in the first 72 hours of operation", say the source documents
_MOST = 512  # Linux has fewer system calls than that


class Baseline:
    """When the agent was first seen, and what it has been refused."""

    __slots__ = ("since", "syscalls")

    def __init__(self) -> None:
        self.since = 0
        self.syscalls: set[str] = set()


@detector(
    id="sandbox.new-denial",
    title="System call denied for the first time",
    reads={KernelActivity, ProcessActivity, Lifecycle},
    severity=Severity.MEDIUM,
    technique="T1106",
    attack=("T1106",),
    atlas=("AML.T0053",),
    asi=("ASI05",),
    seed_asi=("ASI-06",),
    memory=Baseline,
)
def new_denial(event: KernelActivity | ProcessActivity | Lifecycle, known: Baseline) -> Hit | None:
    """Refusals within 72 hours are the agent's baseline. The core keeps it for an agent and policy version through all
    restarts, and says of an event whether it is news (`novel`). Where it says so of none (another gateway's telemetry),
    every event tells how long the instance has run.
    """
    if not known.since or event.time_ns < known.since:
        known.since = event.time_ns
    if not isinstance(event, KernelActivity) or not event.blocked:
        return None
    if event.syscall in known.syscalls and not event.novel:
        return None
    if len(known.syscalls) < _MOST:
        known.syscalls.add(event.syscall)
    if event.time_ns - known.since < BASELINE_NS and not event.novel:
        return None
    return Hit(
        resource=event.syscall,
        summary=f"{event.syscall} refused; not seen in the agent's first 72 hours",
        attempts=(("syscall", event.syscall),),
    )


DETECTOR = new_denial
