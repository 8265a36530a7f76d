"""The responder as a process: takes incidents, says how they ended, goes on with what an earlier life left."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from clawback.config import Settings
from clawback.journal import Journal
from clawback.model import Finding, Severity
from clawback.services.responder import Responder

FINDING = Finding(
    detector="secrets.outside-allow-list",
    agent="nobody",
    instance="nobody-1",
    severity=Severity.HIGH,
    technique="T1552",
    resource="/secret",
    policy="p",
    policy_version=1,
    title="t",
    summary="s",
    time_ns=1,
    events=("sandbox/w/1",),
)


class Ends:
    def __init__(self) -> None:
        self.said: list[dict[str, Any]] = []
        self._new = threading.Condition()

    def __call__(self, said: dict[str, Any]) -> None:
        with self._new:
            self.said.append(said)
            self._new.notify_all()

    def wait(self, ready: Callable[[list[dict[str, Any]]], bool], seconds: float = 30.0) -> None:
        with self._new:
            assert self._new.wait_for(lambda: ready(self.said), seconds), self.said


@pytest.fixture
def ends() -> Ends:
    return Ends()


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(state=tmp_path)


@pytest.fixture
def responder(settings: Settings, ends: Ends) -> Iterator[Responder]:
    running = Responder(settings, ended=ends)
    yield running
    running.stop()


@pytest.mark.slow
def test_takes_incidents_and_says_how_they_ended(settings: Settings, responder: Responder, ends: Ends) -> None:
    incident, _ = Journal(settings.journal).open_or_join(FINDING, playbook="contain-rogue-agent")
    responder.submit(incident.id)
    responder.submit("INC-20200101-NOSUCH")
    ends.wait(lambda said: {"INC-20200101-NOSUCH", incident.id} <= {end["incident"] for end in said})
    known = next(end for end in ends.said if end["incident"] == incident.id)
    # No core answers here: nothing is claimed, and everything is there to be gone on with.
    assert known["status"] == "open"
    assert known["orchestration"] == "degraded"
    assert known["pending"]
    unknown = next(end for end in ends.said if end["incident"] == "INC-20200101-NOSUCH")
    assert unknown["status"] == "unknown"
    assert "no incident" in unknown["error"]


@pytest.mark.slow
def test_killed_it_is_started_again_and_goes_on_by_itself(settings: Settings, responder: Responder, ends: Ends) -> None:
    incident, _ = Journal(settings.journal).open_or_join(FINDING, playbook="contain-rogue-agent")
    responder.submit(incident.id)
    ends.wait(bool)
    before, count = responder.pid, len(ends.said)
    os.kill(before, signal.SIGKILL)
    deadline = time.monotonic() + 20
    while responder.pid in {0, before} and time.monotonic() < deadline:
        responder.tend()
        time.sleep(0.01)
    assert responder.pid not in {0, before}
    ends.wait(lambda said: len(said) > count)
    assert ends.said[-1]["incident"] == incident.id


@pytest.mark.slow
def test_bad_lines_are_answered_and_the_end_of_input_ends_it(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "clawback.orchestrate", "--state", str(tmp_path)],
        input=b'no json\n[]\n{"incident": 7}\n' + b"x" * 100_000 + b"\n\xff\xfe\n" + b"[" * 3000 + b"\n",
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert lines[0] == {"ready": True, "prefect": False}
    assert len(lines) >= 6
    assert all("error" in line for line in lines[1:])
