"""A real agent opens a decoy in a real sandbox: the real core tells, watch freezes and isolates it."""

from __future__ import annotations

import importlib.util
import os
import shutil
import threading
from pathlib import Path
from typing import Any, cast

import pytest

from clawback.config import Settings
from clawback.detectors.secrets import DETECTOR as SECRETS
from clawback.journal import Journal
from clawback.model import Enforcement, Level, ReceiptState
from clawback.watch.engine import Engine
from clawback.watch.main import Watch
from clawback.world import World

pytestmark = pytest.mark.kernel

ROGUE = """
import time
time.sleep(0.2)
try:
    open("/root/.aws/credentials").read()
except OSError:
    pass
while True:
    time.sleep(0.01)
"""


class Handed:
    def __init__(self) -> None:
        self.incidents: list[str] = []

    def submit(self, incident: str) -> None:
        self.incidents.append(incident)

    def tend(self) -> None:
        pass

    def stop(self) -> None:
        pass


@pytest.fixture
def station():
    place = Path(__file__).parents[1] / "enforcement" / "core" / "conftest.py"
    spec = importlib.util.spec_from_file_location("core_station", place)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    core = module._make()
    core.start()
    yield core
    core.clean()
    shutil.rmtree(core.state)


def test_a_decoy_opened_in_a_sandbox_freezes_and_isolates_the_agent(station, tools):
    if station.client.health()["telemetry"].get("canaries", "on") != "on":
        pytest.skip("the core cannot watch decoys here")
    settings = Settings(state=station.state)
    absent = cast("Any", None)
    world = World(core=station.client, policies=absent, secrets=absent, tickets=absent)
    journal, handed = Journal(settings.journal), Handed()
    watch = Watch(settings, world, journal, handed, playbook_of=lambda _detector: "p", engine=Engine([SECRETS]))
    running = threading.Thread(target=watch.run)
    running.start()
    try:
        tools.eventually((settings.run / "watch.sock").exists)
        info, output = station.launch(ROGUE)
        os.close(output)
        tools.eventually(lambda: handed.incidents, 20.0)
        incident = journal.incident(handed.incidents[0])
        assert (incident.agent, incident.instance) == (info.agent, info.instance)
        assert [receipt.state for receipt in incident.receipts] == [ReceiptState.VERIFIED] * 2
        for level in (Level.FREEZE, Level.ISOLATE):
            assert station.client.probe(info.agent, level).enforcement is Enforcement.FULL
        assert incident.findings[0].resource == "/root/.aws/credentials"
        assert watch.rejected == {}
        station.client.contain(info.agent, Level.STOP, reason="test", by="test")
    finally:
        watch.stop()
        running.join()
        journal.dispose()
