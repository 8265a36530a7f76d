"""More than one in a hundred policy decisions takes longer than 200 ms."""

from __future__ import annotations

from collections import OrderedDict, deque
from datetime import UTC, datetime

from clawback.detector import Hit, detector
from clawback.model import SLOW_DECISION_MS, Lifecycle, Severity

__all__ = ["DETECTOR"]

WINDOW_NS = 5 * 60 * 1_000_000_000
FEWEST = 100  # of fewer decisions there is no 99th percentile to speak of
SHARE = 0.01
_REPORTS = 64  # of one policy: a report comes every five seconds
_POLICIES = 256


class Spell:
    """One policy's reports of the last minutes, and since when it has been slow; 0 while it is not."""

    __slots__ = ("reports", "since")

    def __init__(self) -> None:
        self.reports: deque[tuple[int, int, int, str]] = deque(maxlen=_REPORTS)
        self.since = 0


class Spells:
    """By policy, those reported last."""

    __slots__ = ("by_policy",)

    def __init__(self) -> None:
        self.by_policy: OrderedDict[str, Spell] = OrderedDict()


@detector(
    id="policy.latency",
    title="Policy decisions are slow",
    reads={Lifecycle},
    severity=Severity.MEDIUM,
    technique="policy-latency",
    attack=("T1499",),
    atlas=("AML.T0029",),
    asi=("ASI08",),
    seed_asi=("ASI-01",),
    memory=Spells,
)
def policy_latency(event: Lifecycle, spells: Spells) -> Hit | None:
    """Counts over five minutes of the policy engine's heartbeats, because percentiles cannot be added and counts can.
    One spell of slowness is one finding; it is over when a window is within the limit again.
    """
    if event.component != "policy-engine" or not event.decisions:
        return None
    spell = spells.by_policy.pop(event.policy, None) or Spell()
    spells.by_policy[event.policy] = spell
    if len(spells.by_policy) > _POLICIES:
        spells.by_policy.popitem(last=False)
    spell.reports.append((event.time_ns, event.decisions, event.slow, event.uid))
    window = [report for report in spell.reports if event.time_ns - WINDOW_NS < report[0] <= event.time_ns]
    decisions, slow = sum(report[1] for report in window), sum(report[2] for report in window)
    if decisions < FEWEST or slow <= SHARE * decisions:
        spell.since = 0
        return None
    spell.since = spell.since or event.time_ns
    return Hit(
        resource=f"{event.policy} since {datetime.fromtimestamp(spell.since // 10**9, UTC):%Y-%m-%dT%H:%M:%SZ}",
        summary=f"{slow} of {decisions} decisions by policy {event.policy} took longer than {SLOW_DECISION_MS:g} ms "
        f"(p99 {event.p99_ms:g} ms at last)",
        events=tuple(report[3] for report in window[-16:-1]),
    )


DETECTOR = policy_latency
