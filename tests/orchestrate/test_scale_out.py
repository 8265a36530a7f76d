"""Several workers on one journal: each incident once, a dead worker's taken over, no effect twice."""

from __future__ import annotations

import dataclasses
import os
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from clawback.journal import Journal
from clawback.model import Finding, IncidentStatus, Orchestration, ReceiptState, Severity
from clawback.services.postgres import Postgres, find
from clawback.services.prefect_server import PrefectServer, credential
from clawback.services.process import Service

SCRIPT = Path(__file__).with_name("fleet.py")
STEPS = ("frozen", "rotated", "restored")
pytestmark = [pytest.mark.parts, pytest.mark.slow]

FINDING = Finding(
    detector="rehearsal", agent="agent", instance="agent-a", severity=Severity.HIGH, technique="T0001", resource="/r",
    policy="p", policy_version=1, title="t", summary="s", time_ns=1, events=("e",),
)  # fmt: skip


@pytest.fixture(scope="module")
def postgres() -> Iterator[Postgres]:
    if find() is None:
        pytest.skip("there is no PostgreSQL here: apt-get install postgresql")
    folder = Path(tempfile.mkdtemp(prefix="cb-pg-", dir="/tmp"))
    with Postgres(folder) as server:
        yield server
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def server(postgres: Postgres, tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrefectServer]:
    """Prefect's own server, on PostgreSQL."""
    url = postgres.create("prefect").replace("+psycopg", "+asyncpg")
    with PrefectServer(tmp_path_factory.mktemp("prefect"), database_url=url, deadline=120) as running:
        yield running


class Fleet:
    """Workers on one state folder and journal."""

    def __init__(self, state: Path, url: str, server: PrefectServer | None = None) -> None:
        self.state, self.url, self.server = state, url, server
        self.journal = Journal(url)
        self.workers: list[Service] = []
        if server is not None:  # the same installation's credential
            (state / "prefect").mkdir()
            shutil.copy(server.state / "prefect" / "credential", state / "prefect" / "credential")
            (state / "prefect" / "api_url").write_text(server.api_url)

    def start(self, *options: str) -> Service:
        number = len(self.workers)
        log = self.state / f"worker-{number}.log"
        command = [sys.executable, str(SCRIPT), str(self.state), self.url, *options]
        worker = Service(
            f"worker-{number}", command, log=log, ready=lambda: '"ready": true' in log.read_text(), deadline=60
        )
        self.workers.append(worker.start())
        return worker

    def open(self, *names: str) -> list[str]:
        return [
            self.journal.open_or_join(
                dataclasses.replace(FINDING, agent=name, instance=f"{name}-a", events=(name,)), playbook="rehearse"
            )[0].id
            for name in names
        ]

    def until(self, what: str, seen: Callable[[], Any], seconds: float = 60.0) -> float:
        began = time.monotonic()
        while not seen():
            assert time.monotonic() - began < seconds, f"waited for {what}: " + "".join(
                worker.log.read_text()[-1500:] for worker in self.workers
            )
            time.sleep(0.02)
        return time.monotonic() - began

    @property
    def all_closed(self) -> bool:
        return all(one.status is IncidentStatus.CLOSED for one in self.journal.incidents())

    def check(self, names: list[str]) -> None:
        """Every incident ended, every effect made, and made once."""
        calls = Counter((self.state / "effects" / "calls").read_text().splitlines())
        for name in names:
            incident = self.journal.incident(name)
            assert incident.status is IncidentStatus.CLOSED
            assert [receipt.state for receipt in incident.receipts] == [ReceiptState.VERIFIED] * 3
            for step in STEPS:
                assert calls[f"effect {name}.{step}"] == 1, f"{name} {step}"
        assert self.journal.audit_verify()[1] == []
        assert self.journal.due() == ()

    def stop(self) -> None:
        for worker in self.workers:
            worker.stop()
        self.journal.dispose()


@pytest.fixture(params=["sqlite", "postgres"])
def fleet(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Fleet]:
    url = f"sqlite:///{tmp_path / 'journal.db'}"
    if request.param == "postgres":
        url = request.getfixturevalue("postgres").create(f"journal_{os.urandom(4).hex()}")
    made = Fleet(tmp_path, url)
    yield made
    made.stop()


def test_two_workers_share_what_comes_and_do_each_once(fleet: Fleet) -> None:
    names = fleet.open(*(f"agent-{at}" for at in range(12)))
    fleet.start()
    fleet.start()
    names += fleet.open(*(f"later-{at}" for at in range(12)))
    fleet.until("the end of all", lambda: fleet.all_closed)
    fleet.check(names)


@pytest.mark.parametrize("step", STEPS)
def test_killed_amid_an_effect_its_incident_is_taken_over(fleet: Fleet, step: str) -> None:
    names = fleet.open(*(f"agent-{at}" for at in range(6)))
    doomed = fleet.start("--hang-in", step)
    fleet.until("the effect", (fleet.state / "effects" / "hangs").exists)
    fleet.start()
    os.kill(doomed.pid, signal.SIGKILL)
    fleet.until("the end of all", lambda: fleet.all_closed)
    fleet.check(names)


def test_another_hosts_dead_worker_is_known_by_its_lease(
    postgres: Postgres, server: PrefectServer, tmp_path: Path
) -> None:
    fleet = Fleet(tmp_path, postgres.create(f"journal_{os.urandom(4).hex()}"), server)
    try:
        names = fleet.open(*(f"agent-{at}" for at in range(6)))
        doomed = fleet.start("--host", "one.example", "--hang-in", "rotated")
        fleet.start("--host", "two.example")
        fleet.until("the effect", (tmp_path / "effects" / "hangs").exists)
        os.kill(doomed.pid, signal.SIGKILL)
        took = fleet.until("the end of all", lambda: fleet.all_closed)
        print(f"taken over and ended {took:.1f} s after the kill")
        fleet.check(names)
        shown = [name for name in names if fleet.journal.incident(name).orchestration is Orchestration.PREFECT]
        assert shown  # on a machine that is too busy, a run goes on without Prefect and says so
        # Prefect knows of each: the run that died is said to have crashed, and one was completed.
        fleet.until("no run that is alive", lambda: not any(flow_states(server, name)["RUNNING"] for name in names))
        fleet.until("a completed run", lambda: all(flow_states(server, name)["COMPLETED"] == 1 for name in shown))
        assert sum(flow_states(server, name)["CRASHED"] for name in names) >= 1
    finally:
        fleet.stop()


def test_a_worker_that_hangs_longer_than_its_lease_loses_its_incident(postgres: Postgres, tmp_path: Path) -> None:
    fleet = Fleet(tmp_path, postgres.create(f"journal_{os.urandom(4).hex()}"))
    try:
        names = fleet.open("agent-0")
        stopped = fleet.start("--host", "one.example", "--hang-in", "frozen")
        fleet.until("the effect", (tmp_path / "effects" / "hangs").exists)
        os.kill(stopped.pid, signal.SIGSTOP)
        fleet.start("--host", "two.example")
        fleet.until("the end of all", lambda: fleet.all_closed)
        os.kill(stopped.pid, signal.SIGCONT)
        fleet.check(names)
    finally:
        fleet.stop()


def flow_states(server: PrefectServer, incident: str) -> Counter[str]:
    user, password = credential(server.state).split(":")
    body = {"flow_runs": {"tags": {"all_": [f"incident:{incident}"]}}}
    answer = httpx.post(f"{server.api_url}/flow_runs/filter", json=body, auth=(user, password), timeout=30)
    return Counter(run["state"]["type"] for run in answer.raise_for_status().json())
