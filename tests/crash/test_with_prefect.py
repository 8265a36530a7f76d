"""The same with Prefect in the loop: killed with the flow running, and with Prefect's server killed under it."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from clawback.journal import Journal
from clawback.model import IncidentStatus, Orchestration, ReceiptState
from clawback.services.prefect_server import PrefectServer, credential

SCRIPT = Path(__file__).with_name("rehearsal.py")
pytestmark = [pytest.mark.parts, pytest.mark.slow]


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("state")


@pytest.fixture(scope="module")
def server(state: Path) -> Iterator[PrefectServer]:
    with PrefectServer(state) as running:
        yield running


@pytest.fixture(autouse=True)
def _fresh(state: Path) -> Iterator[None]:
    """A new journal and no effects; Prefect's server and its database stay."""
    yield
    for path in [*state.glob("journal.db*"), *(state / "effects").glob("*")]:
        path.unlink()


def life(state: Path, *arguments: object) -> tuple[int, dict[str, Any]]:
    done = subprocess.run(
        [sys.executable, str(SCRIPT), str(state), "--prefect", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    lines = done.stdout.splitlines()
    assert done.returncode in {0, -signal.SIGKILL}, done.stderr[-2000:]
    return done.returncode, json.loads(lines[-1]) if lines and lines[-1].startswith("{") else {}


def flow_runs(server: PrefectServer, incident: str) -> dict[str, int]:
    user, password = credential(server.state).split(":")
    body = {"flow_runs": {"tags": {"all_": [f"incident:{incident}"]}}}
    answer = httpx.post(f"{server.api_url}/flow_runs/filter", json=body, auth=(user, password), timeout=10)
    return dict(Counter(run["state"]["type"] for run in answer.raise_for_status().json()))


def state_name(task: dict[str, Any]) -> str:
    """A task run is listed as soon as its name has come in, which may be before any state of it."""
    return str(task["state"]["name"]) if task["state"] else "none yet"


def task_runs(server: PrefectServer, incident: str) -> list[dict[str, Any]]:
    """Those of the incident's flow, once the server lists the three of them: their ends may come in much later."""
    user, password = credential(server.state).split(":")
    body = {"flow_runs": {"tags": {"all_": [f"incident:{incident}"]}}}
    deadline = time.monotonic() + 30
    while True:
        answer = httpx.post(f"{server.api_url}/task_runs/filter", json=body, auth=(user, password), timeout=10)
        found: list[dict[str, Any]] = answer.raise_for_status().json()
        if len(found) >= 3 or time.monotonic() > deadline:
            return found
        time.sleep(0.05)


def test_undisturbed(state: Path, server: PrefectServer) -> None:
    status, said = life(state)
    assert status == 0
    assert said["usable"]
    assert said["end"] == "prefect"
    (incident,) = Journal(f"sqlite:///{state / 'journal.db'}").incidents()
    assert incident.status is IncidentStatus.CLOSED
    assert flow_runs(server, incident.id) == {"COMPLETED": 1}


def test_side_by_side_in_one_flow(state: Path, server: PrefectServer) -> None:
    status, said = life(state, "--together")
    assert (status, said["end"], said["status"]) == (0, "prefect", "closed")
    (incident,) = Journal(f"sqlite:///{state / 'journal.db'}").incidents()
    assert flow_runs(server, incident.id) == {"COMPLETED": 1}
    tasks = task_runs(server, incident.id)
    assert len(tasks) == 3
    # A busy server may lose what it was told of one, its name or its end: the journal is the record.
    assert {task["name"][:11] for task in tasks} == {"mark.freeze", "mark.rotate", "mark.restor"}
    assert {state_name(task) for task in tasks} <= {"Verified", "Running", "Pending", "none yet"}
    # Side by side, none is taken for a part of another.
    assert [task["task_inputs"] for task in tasks] == [{}, {}, {}]


@pytest.mark.parametrize("step", [4, 5, 9])
@pytest.mark.parametrize("when", ["before", "after"])
def test_killed_in_a_flow_and_resumed_in_another(state: Path, server: PrefectServer, step: int, when: str) -> None:
    assert life(state, "--die", step, "--when", when)[0] == -signal.SIGKILL
    status, said = life(state)
    assert status == 0
    assert said["end"] == "prefect"
    (incident,) = Journal(f"sqlite:///{state / 'journal.db'}").incidents()
    assert incident.status is IncidentStatus.CLOSED
    calls = Counter((state / "effects" / "calls").read_text().splitlines())
    assert [calls[f"effect {name}"] for name in ("frozen", "rotated", "restored")] == [1, 1, 1]
    assert flow_runs(server, incident.id) in ({"COMPLETED": 1, "CRASHED": 1}, {"COMPLETED": 1})


def test_the_server_is_killed_under_the_flow(state: Path, server: PrefectServer) -> None:
    status, said = life(state, "--kill", server.pid)
    assert status == 0
    assert said["end"] == "degraded"
    assert said["status"] == "closed"
    (incident,) = Journal(f"sqlite:///{state / 'journal.db'}").incidents()
    assert incident.orchestration is Orchestration.DEGRADED
    assert {receipt.state for receipt in incident.receipts} == {ReceiptState.VERIFIED}
    server.stop()


def test_without_a_server(tmp_path: Path) -> None:
    status, said = life(tmp_path)
    assert status == 0
    assert not said["usable"]
    assert said["end"] == "degraded"
    assert said["status"] == "closed"
    assert said["first"] < 1000  # nothing waits for what is known to be away
