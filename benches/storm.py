"""A storm of alerts: 100 agents a second go rogue, ten seconds long, while playbooks are run behind.

Every alert is a real one: each agent opens a canary at its time, the kernel refuses, the core reports, watch detects
and contains. Measured from the event's own time to the receipt that isolation was read back, of every agent. An agent
without an incident on record in which both levels are verified fails the bench. The journal is on SQLite.
"""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from sqlalchemy import func, select

from benches.incidents import POLICY, Rig, rig, until
from benches.peers import Unable
from benches.statistics import metric
from clawback.enforcement.kernel import capabilities
from clawback.errors import NotEnforced
from clawback.journal.schema import receipts
from clawback.model import Incident, IncidentStatus, LaunchSpec, ReceiptState

__all__ = ["RUNS", "measure"]

RUNS = (1000, 50)
RATE = 100  # alerts a second: 6,000 a minute
_CALLERS = 2
_SPARE = 2.0  # seconds between the last launch and the first alert
_LAUNCH = 0.03  # seconds that launching one may take, beforehand
_CONTAINED = ("agent.freeze", "agent.isolate")


def measure(n: int) -> dict[str, Any]:
    """`n` agents. `storm_frozen`, `storm_verified`: ms from event to proof; a note says how far the playbooks came."""
    if not capabilities.effective(capabilities.SYS_ADMIN):
        raise Unable("storm: needs root")
    with rig(credentials=False) as running:
        first = time.monotonic() + n * _LAUNCH + _SPARE
        with ThreadPoolExecutor(_CALLERS) as pool:
            instances = set(pool.map(lambda number: _launch(running, number, first), range(n)))
        late = max(0.0, time.monotonic() - first)
        time.sleep(max(0.0, first + n / RATE - time.monotonic()))  # reading the journal meanwhile would be measured
        incidents = until(lambda: _contained(running, instances), 60.0)
        ended = sum(x.status is IncidentStatus.CLOSED for x in incidents.values())
        begun = sum(any(step.action not in _CONTAINED for step in x.receipts) for x in incidents.values())
        times = [_times(x) for x in incidents.values()]
    late_too = f", the first {late:.1f} s late" if late else ""
    said = f"storm: {n} agents at {RATE} a second{late_too}, all contained; {begun} playbooks had begun by then"
    return {
        "metrics": {
            "storm_frozen": metric([frozen for frozen, _ in times], "ms"),
            "storm_verified": metric([verified for _, verified in times], "ms"),
        },
        "ratios": {},
        "notes": [f"{said} and {ended} ended, the others are queued"],
    }


def _launch(running: Rig, number: int, first: float) -> str:
    wait = first + number / RATE - time.monotonic()
    info = running.world.core.launch(
        LaunchSpec(
            agent=f"storm-{number}",
            command=("/bin/sh", "-c", f"sleep {max(0.0, wait):.3f}; read x < /root/.aws/credentials; exec sleep 600"),
            policy="bench",
            policy_version=1,
            policy_text=POLICY,
        )
    )
    return info.instance


def _contained(running: Rig, instances: set[str]) -> dict[str, Incident] | None:
    proofs = select(func.count()).where(receipts.c.action.in_(_CONTAINED), receipts.c.state == ReceiptState.VERIFIED)
    with running.journal.reading() as connection:  # for to read all of it takes a processor a second
        if (connection.execute(proofs).scalar() or 0) < len(_CONTAINED) * len(instances):
            return None
    found = {x.instance: x for x in running.journal.incidents() if x.instance in instances}
    if len(found) < len(instances):
        return None
    whole = all(_verified(incident).keys() >= set(_CONTAINED) for incident in found.values())
    return found if whole else None


def _verified(incident: Incident) -> dict[str, int]:
    return {x.action: x.verified_ns for x in incident.receipts if x.state is ReceiptState.VERIFIED}


def _times(incident: Incident) -> tuple[float, float]:
    if not incident.findings:
        raise NotEnforced(f"{incident.id} has no finding")
    event, verified = min(finding.time_ns for finding in incident.findings), _verified(incident)
    return (verified[_CONTAINED[0]] - event) / 1e6, (verified[_CONTAINED[1]] - event) / 1e6
