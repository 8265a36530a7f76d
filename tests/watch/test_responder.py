"""The responder's child is told every incident, is started again when it dies, and never holds watch up."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import pytest

from clawback.config import Settings
from clawback.watch.responder import ResponderChild

ECHO = """
import sys, json
print(json.dumps({"ready": True, "prefect": False}), flush=True)
for line in sys.stdin:
    with open(sys.argv[1], "a") as file:
        file.write(json.loads(line)["incident"] + "\\n")
    print(json.dumps({"incident": json.loads(line)["incident"]}), flush=True)
"""
DEAF = "import time\nwhile True: time.sleep(60)"


@pytest.fixture
def child(tmp_path: Path):
    made = []

    def make(code: str) -> tuple[ResponderChild, Path]:
        told = tmp_path / "told"
        told.touch()
        one = ResponderChild(Settings(state=tmp_path), command=(sys.executable, "-c", code, str(told)))
        made.append(one)
        return one, told

    yield make
    for one in made:
        one.stop()


def test_what_is_told_before_it_runs_arrives_too(child, tools):
    one, told = child(ECHO)
    one.submit("INC-1")
    one.tend()
    one.submit("INC-2")
    tools.eventually(lambda: told.read_text() == "INC-1\nINC-2\n")
    tools.eventually(lambda: one.ended == 2)


def test_it_is_started_again_when_it_dies(child, tools):
    one, told = child(ECHO)
    one.tend()
    one.submit("INC-1")
    tools.eventually(lambda: told.read_text() == "INC-1\n")
    os.kill(one._service.pid, signal.SIGKILL)
    tools.eventually(lambda: not one._service.running)
    one.submit("INC-2")

    def again() -> bool:
        one.tend()
        return told.read_text() == "INC-1\nINC-2\n"

    tools.eventually(again)
    assert one.restarts == 1


def test_one_that_does_not_listen_holds_nobody_up(child):
    one, _ = child(DEAF)
    one.tend()
    for n in range(5000):
        one.submit(f"INC-{n}" + "x" * 60)


def test_one_that_dies_at_once_is_not_started_without_pause(child):
    one, _ = child("raise SystemExit(1)")
    for _ in range(200):
        one.tend()
    assert one.restarts <= 2
