"""A policy version becomes active that allows more than the newest one that was reviewed."""

from __future__ import annotations

from clawback.detector import Hit, Stateless, detector
from clawback.model import PolicyChange, Severity

__all__ = ["DETECTOR"]


@detector(
    id="policy.widened",
    title="Policy wider than the known-good one",
    reads={PolicyChange},
    severity=Severity.MEDIUM,
    technique="T1562.001",
    attack=("T1562.001", "T1098"),
    atlas=("AML.T0081",),
    asi=("ASI03",),
    seed_asi=("ASI-01",),
)
def policy_widened(event: PolicyChange, _memory: Stateless) -> Hit | None:
    """By the gateway's comparison with the newest version marked known-good, rule by rule. A narrower version, one that
    is itself marked, and an edit that was refused are none. It is about the policy, not about an agent: nobody did
    wrong by running under it.
    """
    if event.blocked or not event.widened:
        return None
    said = "; ".join(event.widened[:6]) + (f"; and {len(event.widened) - 6} more" if len(event.widened) > 6 else "")
    return Hit(
        resource=f"{event.policy} version {event.policy_version}",
        summary=f"version {event.policy_version} by {event.author} allows more than the known-good one: {said}",
    )


DETECTOR = policy_widened
