"""With a part away, containment is unaffected, nothing is claimed, and what was left is done when the part returns."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from contextlib import contextmanager

import pytest

from clawback.model import IncidentStatus, Orchestration

pytestmark = [pytest.mark.kernel, pytest.mark.parts, pytest.mark.slow]

CONTAINED = {"agent.freeze": "verified", "agent.isolate": "verified", "agent.seal": "verified"}


@contextmanager
def hanging(pid):
    """A server that takes connections and answers nothing."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def open_with_pending(house, info, action):
    def seen():
        incident = house.incident_of(info)
        if incident is None or not any(entry.what == "incident stays open" for entry in incident.timeline):
            return None
        return incident

    incident = house.until("a run that left something pending", seen, 120)
    states = house.states(info)
    assert states[action] != "verified"
    assert CONTAINED.items() <= states.items()
    assert states.get("agent.relaunch") != "verified"
    assert incident.status is IncidentStatus.OPEN
    assert house.world.core.agent(info.agent).hold is not None, "nothing lets a contained agent go meanwhile"
    return incident


def resumed(house, info):
    incident = house.incident_of(info)
    said = subprocess.run(
        house.command("resume", incident.id), capture_output=True, text=True, timeout=120, check=False
    )
    assert said.returncode == 0, said.stdout + said.stderr
    assert house.incident_of(info).status is IncidentStatus.CLOSED
    assert set(house.states(info).values()) == {"verified"}
    house.end(info)


def test_vault_sealed(house):
    info = house.launch()
    house.bao.seal()
    try:
        house.go_rogue(info)
        open_with_pending(house, info, "vault.rotate-token")
    finally:
        house.bao.unseal()
    resumed(house, info)


def test_vault_hanging(house):
    info = house.launch()
    with hanging(house.bao.service.pid):
        house.go_rogue(info)
        open_with_pending(house, info, "vault.rotate-token")
    resumed(house, info)


def test_aws_hanging(house):
    info = house.launch()
    with hanging(house.aws.service.pid):
        house.go_rogue(info)
        open_with_pending(house, info, "aws.rotate-key")
    resumed(house, info)


def test_prefect_hanging(house):
    info = house.launch()
    with hanging(house.stack.prefect.pid):
        house.go_rogue(info)
        incident = house.closed(info, 120)
    assert incident.orchestration is Orchestration.DEGRADED
    assert CONTAINED.items() <= house.states(info).items()
    house.end(info)


def test_prefect_killed(house):
    info = house.launch()
    house.stack.prefect.kill()
    house.go_rogue(info)
    incident = house.closed(info, 120)
    assert incident.orchestration in {Orchestration.DEGRADED, Orchestration.PREFECT}  # it is started again meanwhile
    house.end(info)


def wait_for_prefect(house):
    """An earlier test may have killed it: until an incident is shown by it again."""

    def shown():
        info = house.launch(credentials=False)
        house.go_rogue(info)
        incident = house.closed(info, 120)
        house.end(info)
        return incident.orchestration is Orchestration.PREFECT

    house.until("Prefect's return", shown, 120)


def test_prefect_killed_amid_the_run(house):
    wait_for_prefect(house)
    info = house.launch()
    house.go_rogue(info)

    def shown():
        incident = house.incident_of(info)
        return incident is not None and incident.orchestration is Orchestration.PREFECT

    house.until("the flow", shown)
    house.stack.prefect.kill()
    house.closed(info, 120)
    assert CONTAINED.items() <= house.states(info).items()
    assert set(house.states(info).values()) == {"verified"}
    house.end(info)


def test_prefect_slow(house):
    """It runs for a tenth of the time: each of its answers takes seconds."""
    wait_for_prefect(house)
    info, over = house.launch(), threading.Event()

    def slow():
        while not over.is_set():
            with hanging(house.stack.prefect.pid):
                over.wait(0.45)
            over.wait(0.05)

    slowing = threading.Thread(target=slow)
    slowing.start()
    try:
        house.go_rogue(info)
        house.closed(info, 120)
    finally:
        over.set()
        slowing.join()
    assert CONTAINED.items() <= house.states(info).items()
    assert set(house.states(info).values()) == {"verified"}
    house.end(info)


def test_gateway_killed(house):
    info = house.launch()
    house.stack.gateway.kill()
    house.go_rogue(info)
    house.until("containment", lambda: CONTAINED.items() <= house.states(info).items())
    house.until("the gateway's return", lambda: house.stack.gateway.running)
    if house.incident_of(info).status is not IncidentStatus.CLOSED:
        house.until(
            "the run's end",
            lambda: (
                any(e.what == "incident stays open" for e in house.incident_of(info).timeline)
                or house.incident_of(info).status is IncidentStatus.CLOSED
            ),
        )
    if house.incident_of(info).status is not IncidentStatus.CLOSED:
        resumed(house, info)
    house.end(info)
