"""Incidents that are carried from open to closed in a minute, each a Prefect flow: on SQLite and on PostgreSQL.

The playbook is `policy-latency`, which touches no agent, so that the orchestration is what is measured: a flow run and
some six task runs each, every step journalled, read back, and shown. Two workers as `clawback worker` starts them share
the journal. Timed from the moment that both have Prefect to the last incident's end. Counted are those that Prefect
showed while they ran; one that it was too busy for is given a run afterwards, and is not counted. How many runs Prefect
itself lists as completed in the end is noted.
"""

from __future__ import annotations

import resource
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
from sqlalchemy import func, select

from benches.incidents import Rig, rig, until
from benches.statistics import metric
from clawback.enforcement.gateway.client import GatewayClient
from clawback.journal.schema import incidents
from clawback.model import Attempt, Finding, IncidentStatus, Lifecycle, Orchestration, Severity, Source
from clawback.services.postgres import Postgres, find
from clawback.services.prefect_server import credential
from clawback.services.process import Service

__all__ = ["RUNS", "SECONDS", "measure"]

RUNS = (90, 10)
SECONDS = 420.0
WORKERS = 2
_DECISIONS = 200  # that the policy engine makes in time, for the playbook to see
_SECONDS = 70.0
_SHOWN_SECONDS = 60.0  # an end that Prefect was too busy to write down is made good every 30 s


def measure(n: int) -> dict[str, Any]:
    """`n` incidents on each database: `orchestrated_…`, incidents a minute, and by how much both workers' memory grows
    with half as many further ones; one number each.
    """
    notes: list[str] = []
    metrics = _of(n, "", "", notes)
    if find() is None:
        return {"metrics": metrics, "ratios": {}, "notes": [*notes, "orchestrated: no PostgreSQL here"]}
    with tempfile.TemporaryDirectory(prefix="cb-pg-", dir="/tmp") as folder:
        Path(folder).chmod(0o755)
        with Postgres(Path(folder) / "pg") as server:
            journal, prefect = server.create("clawback"), server.create("prefect").replace("+psycopg", "+asyncpg")
            metrics |= _of(n, journal, prefect, notes)
    return {"metrics": metrics, "ratios": {}, "notes": notes}


def _of(n: int, journal_url: str, prefect_url: str, notes: list[str]) -> dict[str, Any]:
    name, key = ("PostgreSQL", "postgres") if journal_url else ("SQLite", "sqlite")
    with rig(journal_url=journal_url, prefect_url=prefect_url, credentials=False, embedded=False) as running:
        found_ns = time.time_ns()
        _decide(running)
        with ExitStack() as workers:
            processes = [workers.enter_context(_worker(running.state, number)) for number in range(WORKERS)]
            began = time.monotonic()
            for number in range(n):
                running.journal.open_or_join(_finding(number, found_ns), playbook="policy-latency")
            _all_closed(running)
            seconds = time.monotonic() - began
            driven = sum(
                incident.orchestration is Orchestration.PREFECT
                for incident in running.journal.incidents(IncidentStatus.CLOSED)
            )
            shown = _completed(running.state, n)
            before = sum(map(_resident, processes))
            more = max(1, n // 2)
            for number in range(n, n + more):
                running.journal.open_or_join(_finding(number, found_ns), playbook="policy-latency")
            _all_closed(running)
            _completed(running.state, n + more)
            grown = (sum(map(_resident, processes)) - before) / more
    notes.append(
        f"orchestrated: {n} incidents on {name}, all closed, {driven} shown as they ran, {shown} completed in Prefect"
    )
    return {
        f"orchestrated_{key}": metric([60 * driven / seconds], "a minute"),
        f"orchestrated_{key}_memory": metric([grown / 1024], "KiB an incident"),
    }


def _resident(process: Service) -> int:
    """Bytes, of `/proc/PID/statm`."""
    return int(Path(f"/proc/{process.pid}/statm").read_text().split()[1]) * resource.getpagesize()


def _finding(number: int, at_ns: int) -> Finding:
    return Finding(
        detector="policy.latency", agent=f"policy:bench-{number}", instance="policy:bench", severity=Severity.MEDIUM,
        technique="policy-latency", resource=f"bench {number}", policy="bench", policy_version=1, title="slow",
        summary="slow", time_ns=at_ns, events=(f"bench/{number}",),
    )  # fmt: skip


def _decide(running: Rig) -> None:
    """Let the engine decide in time, and report it: by that the playbook sees that the trouble is over."""
    gateway = GatewayClient(running.state / "run" / "gateway.sock")
    after = time.time_ns()
    for _ in range(_DECISIONS):
        gateway.decide("bench", Attempt(kind="connect", target="example.com:443"))

    def reported() -> bool | None:
        read = running.world.telemetry.events(sources=(Source.POLICY,), since_ns=after)
        return any(isinstance(x, Lifecycle) and x.component == "policy-engine" for x in read.events) or None

    until(reported, 30.0)


def _worker(state: Path, number: int) -> Service:
    log = state / f"worker-{number}.log"
    options = ["--work", "--state", str(state), "--config", str(state / "clawback.yaml")]
    return Service(
        f"worker-{number}",
        [sys.executable, "-m", "clawback.orchestrate", *options],
        log=log,
        ready=lambda: '"prefect": true' in log.read_text(),
        deadline=60,
    )


def _all_closed(running: Rig) -> None:
    of_open = select(func.count()).select_from(incidents).where(incidents.c.status == IncidentStatus.OPEN)

    def closed() -> bool | None:
        with running.journal.reading() as connection:
            return connection.execute(of_open).scalar() == 0 or None

    until(closed, _SECONDS)


def _completed(state: Path, wanted: int) -> int:
    """How many flow runs Prefect has as completed, once these are as many as are wanted, or time is up."""
    user, password = credential(state).split(":")
    url = (state / "prefect" / "api_url").read_text().strip()
    body = {"flow_runs": {"state": {"type": {"any_": ["COMPLETED"]}}}}
    deadline = time.monotonic() + _SHOWN_SECONDS
    while True:
        answer = httpx.post(f"{url}/flow_runs/count", json=body, auth=(user, password), timeout=30)
        count = int(answer.raise_for_status().json())
        if count >= wanted or time.monotonic() > deadline:
            return count
        time.sleep(0.1)
