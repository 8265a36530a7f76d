"""The journal as it grows: what a step costs and takes up, with 10, 1,000 and 10,000 incidents in it.

An incident here is 16 steps, each intended with what was captured, applied and verified, as `clawback.response` makes
them, on SQLite with a flush to disk for each. The first ten are made so; in between the journal is filled with copies
of one, rows and audit entries alike, under ids of their own. `bytes a receipt` is the file's growth over its receipts:
rows, indexes, timeline and audit record.
"""

from __future__ import annotations

import shutil
import sqlite3
import tempfile
import time
from pathlib import Path
from typing import Any

from benches.statistics import Metric, metric
from clawback.journal import Journal
from clawback.model import Enforcement, Finding, Level, Phase, Severity

__all__ = ["RUNS", "copies", "fill", "incident", "measure", "size"]

RUNS = (10_000, 1_000)
STEPS = 16
_MEASURED = 10
_OWNER = ("incidents", "id")


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


def fill(journal: Journal, start: int, end: int) -> None:
    """Incidents number `start` to `end`."""
    for number in range(start, end):
        with journal.together():
            incident(journal, number)


def copies(path: Path, start: int, end: int) -> None:
    """Incidents number `start` to `end`, as copies of one that is there."""
    with sqlite3.connect(path) as connection:
        (name,) = connection.execute("SELECT id FROM incidents LIMIT 1").fetchone()
        (seq,) = connection.execute("SELECT max(seq) FROM audit").fetchone()
        for table, owner in (*((one, "incident") for one in ("findings", "receipts", "timeline", "audit")), _OWNER):
            names = [row[1] for row in connection.execute(f"PRAGMA table_info({table})")]
            kept = [one for one in names if one != "id" or table == "incidents"]
            rows = connection.execute(
                f"SELECT {', '.join(kept)} FROM {table} WHERE {owner} = ?",  # noqa: S608 - names from here
                (name,),
            ).fetchall()
            made: list[tuple[object, ...]] = []
            for number in range(start, end):
                for row in rows:
                    values = dict(zip(kept, row, strict=True))
                    values[owner] = f"INC-20260101-{number:06}"
                    if table == "incidents":
                        values["agent"] = values["instance"] = f"copy-{number}"
                    if table == "findings":
                        values["occurrence"] = f"{number:064}"
                    if table == "audit":
                        seq += 1
                        values["seq"] = seq
                    made.append(tuple(values.values()))
            marks = ", ".join("?" * len(kept))
            connection.executemany(f"INSERT INTO {table} ({', '.join(kept)}) VALUES ({marks})", made)  # noqa: S608
    connection.close()


def size(path: Path) -> int:
    """Bytes on disk, once what is in the log is in the file."""
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()
    return path.stat().st_size


def measure(n: int) -> dict[str, Any]:
    """`n` incidents in the end."""
    folder = Path(tempfile.mkdtemp(prefix="clawback-bench-"))
    try:
        path = folder / "journal.db"
        journal = Journal(f"sqlite:///{path}")
        metrics: dict[str, Metric] = {}
        fill(journal, 0, 10)
        at = time.perf_counter()
        count, faults, _ = journal.audit_verify()
        metrics[f"journal: audit verify of {count:,} entries"] = metric([(time.perf_counter() - at) * 1e3], "ms")
        there, number = 10, 10
        for level in [count for count in (10, 1_000, 10_000) if count <= n]:
            before = size(path)
            copies(path, there, level)
            if level > there:
                grown = (size(path) - before) / ((level - there) * STEPS)
                metrics[f"journal: bytes a receipt, to {level:,} incidents"] = metric([grown], "bytes")
            there, times = level, []
            for _ in range(_MEASURED):
                at = time.perf_counter()
                incident(journal, number)
                times.append((time.perf_counter() - at) * 1e3 / STEPS)
                number += 1
            metrics[f"journal: a step, three writes, at {level:,} incidents"] = metric(times, "ms")
        journal.dispose()
        return {"metrics": metrics, "notes": [f"journal: {len(faults)} faults found in {count:,} entries"]}
    finally:
        shutil.rmtree(folder, ignore_errors=True)
