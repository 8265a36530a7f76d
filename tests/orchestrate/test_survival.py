"""A flow that died is found and gone on with by whoever comes next, and Prefect is told the truth about it."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from clawback.journal import Journal
from clawback.model import Finding, IncidentStatus, Orchestration, Severity
from clawback.services.prefect_server import PrefectServer, credential
from clawback.services.process import Service

SCRIPT = Path(__file__).with_name("fleet.py")
FINDING = Finding(
    detector="rehearsal", agent="agent", instance="agent-a", severity=Severity.HIGH, technique="T0001", resource="/r",
    policy="p", policy_version=1, title="t", summary="s", time_ns=1, events=("e",),
)  # fmt: skip
pytestmark = [pytest.mark.parts, pytest.mark.slow]


class Machine:
    """A Prefect server and a worker, each of which can die."""

    def __init__(self, state: Path) -> None:
        self.state = state
        self.url = f"sqlite:///{state / 'journal.db'}"
        self.server = PrefectServer(state, deadline=120).start()
        self.journal = Journal(self.url)
        self.incident = self.journal.open_or_join(FINDING, playbook="rehearse")[0].id
        self._lives = 0
        self.worker = self.live()

    def live(self, *options: str) -> Service:
        """The next life of the worker, as a supervisor starts it; the first hangs in its second step."""
        self._lives += 1
        log = self.state / f"worker-{self._lives}.log"
        hang = ("--hang-in", "rotated") if self._lives == 1 else ()
        self.worker = Service(
            "worker", [sys.executable, str(SCRIPT), str(self.state), self.url, *hang, *options],
            log=log, ready=lambda: '"ready": true' in log.read_text(), deadline=90,
        ).start()  # fmt: skip
        return self.worker

    def until_it_hangs(self) -> None:
        until("the effect", (self.state / "effects" / "hangs").exists)
        until("the flow", lambda: self.flows()["RUNNING"] == 1)

    def flows(self) -> Counter[str]:
        user, password = credential(self.state).split(":")
        body = {"flow_runs": {"tags": {"all_": [f"incident:{self.incident}"]}}}
        answer = httpx.post(f"{self.server.api_url}/flow_runs/filter", json=body, auth=(user, password), timeout=30)
        return Counter(run["state"]["type"] for run in answer.raise_for_status().json())

    def cancel(self) -> None:
        """As somebody does in Prefect's pages, past what Prefect's own rules would say."""
        user, password = credential(self.state).split(":")
        body = {"flow_runs": {"tags": {"all_": [f"incident:{self.incident}"]}}}
        answer = httpx.post(f"{self.server.api_url}/flow_runs/filter", json=body, auth=(user, password), timeout=30)
        (run,) = answer.raise_for_status().json()
        body = {"state": {"type": "CANCELLED", "name": "Cancelled"}, "force": True}
        url = f"{self.server.api_url}/flow_runs/{run['id']}/set_state"
        httpx.post(url, json=body, auth=(user, password), timeout=30).raise_for_status()

    def until_true(self, **states: int) -> None:
        """Prefect says of the incident's runs what is so."""
        try:
            until("the truth in Prefect", lambda: self.flows() == states, 90)
        except AssertionError as error:
            raise AssertionError(f"{self.flows()}, not {states}: {self.worker.tail()}") from error

    def until_closed(self) -> None:
        until("the end", lambda: self.journal.incident(self.incident).status is IncidentStatus.CLOSED)
        calls = Counter((self.state / "effects" / "calls").read_text().splitlines())
        assert [calls[f"effect {self.incident}.{step}"] for step in ("frozen", "rotated", "restored")] == [1, 1, 1]


def until(what: str, seen: Callable[[], Any], seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not seen():
        assert time.monotonic() < deadline, f"waited for {what}"
        time.sleep(0.05)


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    made = Machine(tmp_path)
    yield made
    made.worker.stop()
    made.server.stop()
    made.journal.dispose()


def test_the_worker_is_killed(machine: Machine) -> None:
    machine.until_it_hangs()
    os.kill(machine.worker.pid, signal.SIGKILL)
    machine.live()
    machine.until_closed()
    machine.until_true(CRASHED=1, COMPLETED=1)
    assert machine.journal.incident(machine.incident).orchestration is Orchestration.PREFECT


def test_the_power_goes(machine: Machine) -> None:
    machine.until_it_hangs()
    os.kill(machine.server.pid, signal.SIGKILL)
    os.kill(machine.worker.pid, signal.SIGKILL)
    with machine.journal.writing() as connection:  # what another boot of this host would find
        changed = connection.exec_driver_sql("UPDATE locks SET boot = 'before 1', pid = 1, started = 0")
        assert changed.rowcount == 1
    machine.server.stop()
    machine.server.start()
    machine.live()
    machine.until_closed()
    machine.until_true(CRASHED=1, COMPLETED=1)


def test_the_server_is_lost_and_comes_back_when_all_is_over(machine: Machine) -> None:
    machine.until_it_hangs()
    os.kill(machine.server.pid, signal.SIGKILL)
    (machine.state / "effects" / "go").touch()
    machine.until_closed()
    until(
        "the record of it",
        lambda: machine.journal.incident(machine.incident).orchestration is Orchestration.DEGRADED,
    )
    machine.server.stop()
    machine.server.start()
    machine.until_true(COMPLETED=1)


def test_what_begins_and_closes_while_the_server_is_away_is_shown_when_it_comes_back(machine: Machine) -> None:
    machine.until_it_hangs()
    (machine.state / "effects" / "go").touch()
    machine.until_closed()
    machine.until_true(COMPLETED=1)
    os.kill(machine.server.pid, signal.SIGKILL)
    machine.incident = machine.journal.open_or_join(FINDING, playbook="rehearse")[0].id
    machine.until_closed()
    machine.server.stop()
    machine.server.start()
    machine.until_true(COMPLETED=1)


def test_the_worker_dies_with_the_server_away_and_the_server_comes_back_first(machine: Machine) -> None:
    machine.until_it_hangs()
    os.kill(machine.server.pid, signal.SIGKILL)
    os.kill(machine.worker.pid, signal.SIGKILL)
    machine.live()
    machine.until_closed()
    until(
        "the record of it",
        lambda: machine.journal.incident(machine.incident).orchestration is Orchestration.DEGRADED,
    )
    machine.server.stop()
    machine.server.start()
    machine.until_true(COMPLETED=1)


def test_a_run_that_is_cancelled_in_prefect_stops_no_response(machine: Machine) -> None:
    machine.until_it_hangs()
    machine.cancel()
    assert machine.flows() == {"CANCELLED": 1}
    (machine.state / "effects" / "go").touch()
    machine.until_closed()
