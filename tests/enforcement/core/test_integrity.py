"""A sandbox that is not what was launched: the core says so, and what it was launched as outlives the core."""

from __future__ import annotations

import json
import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from clawback.enforcement.telemetry import integrity
from clawback.enforcement.telemetry.integrity import Integrity
from clawback.model import Attempt, Level, Lifecycle, Severity

pytestmark = pytest.mark.kernel

SILENT = tuple(Attempt(kind="connect", target=f"silent-{number}.invalid:443") for number in range(4))
IDLE = "import threading, time\nthreading.Thread(target=time.sleep, args=(600,)).start()\ntime.sleep(600)"


def is_tampered(event) -> bool:
    return isinstance(event, Lifecycle) and event.status == "tampered"


def beats(core, agent: str, count: int) -> None:
    def seen() -> bool:
        return sum(isinstance(one, Lifecycle) and one.status == "alive" for one in core.events(agent=agent)) >= count

    core.until(seen, why="no heartbeats")


def stranger(uid: int = 0) -> int:
    """A process that the core did not start."""
    child = os.fork()
    if child == 0:
        try:
            os.setresuid(uid, uid, uid)
            time.sleep(600)
        finally:
            os._exit(0)
    return child


def record(core, agent: str):
    return next(one for one in core.records() if one.agent == agent)


def test_a_process_of_the_agents_user_outside_its_cgroup(core):
    info, _ = core.launch(IDLE)
    other, _ = core.launch(IDLE)
    child = stranger(record(core, info.agent).uid)
    try:
        event = core.wait_for(is_tampered, agent=info.agent)
        assert event.severity is Severity.HIGH
        assert f"process {child} of its user is outside its cgroup" in event.message
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    beats(core, other.agent, 3)
    assert not any(is_tampered(one) for one in core.events(agent=other.agent))


def test_a_foreign_process_in_the_cgroup(core):
    info, _ = core.launch(IDLE)
    child = stranger()
    try:
        Path(record(core, info.agent).cgroup, "cgroup.procs").write_text(str(child))
        event = core.wait_for(is_tampered, agent=info.agent)
        assert f"process {child} of user 0 is in its cgroup" in event.message
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def test_no_level_of_the_ladder_is_taken_for_tampering(core):
    info, _ = core.launch(IDLE)
    beats(core, info.agent, 1)
    for level in (Level.FREEZE, Level.ISOLATE, Level.RESTRICT, Level.SEAL):
        core.client.contain(info.agent, level, reason="test", by="test")
    core.client.attempt(info.agent, ())
    at = len(core.events(agent=info.agent))
    core.until(lambda: sum(isinstance(one, Lifecycle) for one in core.events(agent=info.agent)[at:]) >= 4)
    assert not any(is_tampered(one) for one in core.events(agent=info.agent))


def test_what_it_was_launched_as_outlives_the_core(core):
    info, _ = core.launch(IDLE)
    beats(core, info.agent, 1)
    core.end(signal.SIGKILL)
    path = Path(record(core, info.agent).folder, "integrity.json")
    launched = json.loads(path.read_text())
    path.write_text(json.dumps({**launched, "mounts": "another"}))
    core.start()
    assert "not as at launch: mounts" in core.wait_for(is_tampered, agent=info.agent).message


def test_a_file_that_is_shown_and_replaced_on_the_host_is_no_tampering(core, tmp_path):
    """As an update replaces what lies in /etc, and the gateway its bundle of certificates."""
    tmp_path.chmod(0o755)
    shown = tmp_path / "shown.pem"
    shown.write_text("before")
    info, _ = core.launch(IDLE, readable=(str(shown),))
    beats(core, info.agent, 1)
    (tmp_path / "new").write_text("after")
    (tmp_path / "new").rename(shown)
    mounted = Path(f"/proc/{record(core, info.agent).pid}/mountinfo").read_text()
    assert f"{shown}//deleted" in mounted
    beats(core, info.agent, 3)
    assert not any(is_tampered(one) for one in core.events(agent=info.agent))


def test_threads_are_looked_at_one_by_one(core):
    info, _ = core.launch(IDLE)
    box = record(core, info.agent)
    launched = Integrity.of(box)
    core.until(lambda: len(Path(box.cgroup, "cgroup.threads").read_text().split()) >= 3)
    owned = integrity.owners()
    assert integrity.strays(box, launched, owned) == ()
    more = Integrity(**{name: getattr(launched, name) for name in launched.__slots__} | {"filters": 9})
    assert len(integrity.strays(box, more, owned)) >= 3


@pytest.mark.parametrize("frozen", [False, True], ids=["running", "frozen"])
def test_an_attempt_of_the_cores_own_that_takes_long_is_no_tampering(core, frozen):
    """It is among the agent's processes, and not yet under its filters, for as long as the gateway does not answer."""
    info, _ = core.launch(IDLE)
    beats(core, info.agent, 1)
    if frozen:
        core.client.contain(info.agent, Level.FREEZE, reason="test", by="test")
    results = core.client.attempt(info.agent, SILENT[:2])
    assert all("no answer from the gateway" in result.detail for result in results), results
    assert not any(is_tampered(one) for one in core.events(agent=info.agent))


def test_what_a_core_that_died_was_trying_is_no_tampering_to_the_next(core):
    info, _ = core.launch(IDLE)
    beats(core, info.agent, 1)
    inside = Path(record(core, info.agent).cgroup, "cgroup.procs")
    alone = len(inside.read_text().split())
    with ThreadPoolExecutor() as beside:
        beside.submit(core.client.attempt, info.agent, SILENT)
        core.until(lambda: len(inside.read_text().split()) > alone, why="no attempt was made")
        core.end(signal.SIGKILL)
    core.start()
    beats(core, info.agent, len(core.events(agent=info.agent)) + 2)
    assert not any(is_tampered(one) for one in core.events(agent=info.agent))
