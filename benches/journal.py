"""The journal as it grows: what a step costs and takes up, with 10, 1,000 and 10,000 incidents in it.

An incident here is 16 steps, each intended with what was captured, applied and verified, as `clawback.response` makes
them, on SQLite with a flush to disk for each. The journal is filled in between with such incidents, one flush for each.
`bytes a receipt` is the file's growth by the filling, over its receipts: rows, indexes, timeline and audit record.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

from benches.statistics import Metric, metric
from clawback.journal import Journal
from clawback.model import Enforcement, Finding, Level, Phase, Severity
from clawback.watch.ledger import Ledger

__all__ = ["RUNS", "fill", "incident", "measure", "size"]

RUNS = (10_000, 300)
STEPS = 16
_MEASURED = 10


def incident(journal: Journal, number: int) -> str:
    """One incident from its opening to its end."""
    agent = f"support-{number}"
    finding = Finding(
        detector="exfiltration.new-destination",
        agent=agent,
        instance=f"{agent}-01a2",
        severity=Severity.CRITICAL,
        technique="exfiltration over a web service",
        resource="files.partner.example:443",
        policy="support",
        policy_version=3,
        title="data sent to a host never seen before",
        summary=f"{agent} sent 48,213 bytes to files.partner.example:443, where it had never connected",
        time_ns=time.time_ns(),
        events=(f"sandbox/{agent}/1", f"sandbox/{agent}/2"),
        reflex=Level.ISOLATE,
        attempts=(("connect", "files.partner.example:443"),),
    )
    name = journal.open_or_join(finding, playbook="contain-rogue-agent")[0].id
    for step in range(STEPS):
        params = {"agent": agent, "name": f"credential-{step}", "reason": f"{name}: {finding.title}"}
        captured = {"status": "Active", "policies": ["default", "support"], "ttl": 3600, "at": "2026-11-28T03:00:00Z"}
        receipt = journal.intend(
            name, f"aws.rotate-key:{agent}/{step}", "aws.rotate-key", Phase.ERADICATE, params, "responder",
            captured=captured,
        )  # fmt: skip
        journal.applied(receipt.id, {"new": f"credential-{step}-new", "old": "Inactive", "elapsed_ms": 12.5})
        proof = (
            "the old key was used for sts:GetCallerIdentity: InvalidClientTokenId; the new one answers as the same user"
        )
        journal.verified(receipt.id, proof, Enforcement.FULL)
    journal.close(name)
    return name


def fill(journal: Ledger, start: int, end: int) -> None:
    """Incidents number `start` to `end`."""
    for number in range(start, end):
        with journal.together():
            incident(journal, number)


def size(path: Path) -> int:
    """Bytes on disk, once what is in the log is in the file."""
    import sqlite3

    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()
    return path.stat().st_size


def measure(n: int) -> dict[str, Any]:
    """`n` incidents in the end."""
    folder = Path(tempfile.mkdtemp(prefix="clawback-bench-"))
    try:
        path = folder / "journal.db"
        journal = Ledger(f"sqlite:///{path}")
        metrics: dict[str, Metric] = {}
        there = 0
        for level in [count for count in (10, 1_000, 10_000) if count <= n]:
            before, began = size(path), there
            fill(journal, there, level)
            grown, there = size(path) - before, level
            if began:
                metrics[f"journal: bytes a receipt, to {level:,} incidents"] = metric(
                    [grown / ((level - began) * STEPS)], "bytes"
                )
            times = []
            for _ in range(_MEASURED):
                at = time.perf_counter()
                incident(journal, there)
                times.append((time.perf_counter() - at) * 1e3 / STEPS)
                there += 1
            metrics[f"journal: a step, three writes, at {level:,} incidents"] = metric(times, "ms")
        at = time.perf_counter()
        count, faults, _ = journal.audit_verify()
        took = time.perf_counter() - at
        metrics[f"journal: audit verify of {count:,} entries"] = metric([took], "s")
        journal.dispose()
        return {"metrics": metrics, "notes": [f"journal: {len(faults)} faults found in {count:,} entries"]}
    finally:
        shutil.rmtree(folder, ignore_errors=True)
