"""The core starts the supervisor with the first agent that needs one, and again when it is gone; both may be killed."""

from __future__ import annotations

import os
import secrets
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from clawback.enforcement.core.claims import unclaimed_uid_base
from clawback.enforcement.core.client import CoreClient
from clawback.enforcement.kernel import cgroups
from clawback.enforcement.sandbox import inventory
from clawback.enforcement.supervise.client import SupervisorClient
from clawback.errors import ClawbackError, Unreachable
from clawback.model import LaunchSpec, Level

pytestmark = [pytest.mark.kernel, pytest.mark.slow]

POLICY = """\
apiVersion: openshell.nvidia.com/v1
kind: SandboxPolicy
metadata: {name: test}
spec:
  isolation:
    network: restricted
    syscalls:
      base: default
      escalate: [getpgid, kill, openat]
      decide:
      - {names: [kill, openat], decision: allow}
"""
PROGRAM = """
import os, sys
print("up", flush=True)
for line in sys.stdin:
    results = []
    for call in (lambda: os.kill(os.getpid(), 0), lambda: os.getpgid(0)):
        try: call(); results.append("ok")
        except OSError as error: results.append(str(error.errno))
    print(*results, flush=True)
"""


class Core:
    def __init__(self, state: Path, wait_for: Any) -> None:
        self.state = state
        self.group = f"clawback-supervised-{secrets.token_hex(4)}"
        self.base = unclaimed_uid_base()
        self.client = CoreClient(state / "run" / "core.sock", timeout=20.0)
        self.supervisor = SupervisorClient(state)
        self._wait_for = wait_for
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        code = (
            "from pathlib import Path; from clawback.enforcement.core.main import serve; from clawback import log\n"
            f"log.configure(); serve(Path({str(self.state)!r}), cgroup={self.group!r}, uid_base={self.base},"
            " heartbeat_seconds=0.2)"
        )
        self._process = subprocess.Popen([sys.executable, "-c", code])
        self._wait_for(self._answers)

    def _answers(self) -> bool:
        try:
            return self.client.health()["status"] == "ok"
        except Unreachable:
            return False

    def stop(self) -> None:
        assert self._process is not None
        self._process.terminate()
        assert self._process.wait(20) == 0

    def kill(self) -> None:
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def supervisor_pid(self, other_than: int = 0) -> int:
        def found() -> int:
            try:
                pid = int(self.supervisor.status()["pid"])
            except Unreachable:
                return 0
            return pid if pid != other_than else 0

        return int(self._wait_for(found))

    def clean(self) -> None:
        self.kill()
        try:
            os.kill(int(self.supervisor.status()["pid"]), signal.SIGKILL)
        except Unreachable:
            pass
        for record in inventory.read_all(self.state)[0]:
            if inventory.is_process(record.pid, record.start_ticks):
                os.kill(record.pid, signal.SIGKILL)
            self._wait_for(lambda r=record: not inventory.is_process(r.shim_pid, r.shim_start_ticks))
            inventory.remove(record)
        # A spare of the killed core may still be ending.
        self._wait_for(lambda: cgroups.remove_parent(cgroups.discover(), self.group))


@pytest.fixture
def core(state: Path, wait_for: Any) -> Iterator[Core]:
    made = Core(state, wait_for)
    try:
        made.start()
        yield made
    finally:
        made.clean()


class Program:
    def __init__(self, core: Core) -> None:
        inner, self._told = os.pipe()
        output, outer = os.pipe()
        self._lines = os.fdopen(output)
        spec = LaunchSpec(
            agent="alpha",
            command=(sys.executable, "-c", PROGRAM),
            policy="test",
            policy_version=1,
            policy_text=POLICY,
        )
        core.client.launch(spec, stdio=(inner, outer, 2))
        os.close(inner)
        os.close(outer)
        assert self.hear() == "up"

    def tell(self) -> None:
        os.write(self._told, b"go\n")

    def hear(self) -> str:
        return self._lines.readline().strip()

    def spoke(self) -> Iterator[Any] | None:
        """Truthy (an iterator over nothing) once there is something to hear."""
        return iter(()) if select.select([self._lines], [], [], 0)[0] else None

    def close(self) -> None:
        os.close(self._told)
        self._lines.close()


def test_supervision_outlives_the_core_and_comes_back_after_its_own_death(core, wait_for):
    assert core.client.health()["supervisor"] == "unneeded"
    program = Program(core)
    assert core.client.health()["supervisor"] == "up"

    def answered(word: str) -> None:
        program.tell()
        (ask,) = wait_for(core.supervisor.escalations)
        core.supervisor.answer(ask["id"], allow=True, by="test", reason="test")
        assert program.hear() == word

    answered("ok ok")
    first = core.supervisor_pid()
    core.kill()
    answered("ok ok")  # nobody but the core is missing
    core.start()
    assert core.supervisor_pid() == first
    os.kill(first, signal.SIGKILL)
    core.supervisor_pid(other_than=first)
    wait_for(lambda: core.supervisor.status()["supervised"])
    answered("ok ok")
    wait_for(lambda: '"lost"' in (core.state / "telemetry/sandbox.jsonl").read_text())
    # Files are opened by a process of the supervisor's beside the agent; it is no stranger in the sandbox.
    text = (core.state / "telemetry/sandbox.jsonl").read_text()
    beats = text.count('"alive"')
    wait_for(lambda: (core.state / "telemetry/sandbox.jsonl").read_text().count('"alive"') > beats + 8)
    assert "tampered" not in (core.state / "telemetry/sandbox.jsonl").read_text()
    program.close()


def test_a_hold_of_the_core_bars_the_agent_until_it_is_released(core, wait_for):
    program = Program(core)
    program.tell()
    wait_for(core.supervisor.escalations)
    held = core.client.contain("alpha", Level.FREEZE, reason="test", by="test")
    assert held.enforcement == "full"  # a call that waits does not keep its process from freezing
    wait_for(lambda: not core.supervisor.escalations())
    assert core.supervisor.status("alpha")["agents"][0]["barred"] == "hold"
    core.client.release("alpha", reason="test", by="test")
    assert core.supervisor.status("alpha")["agents"][0]["barred"] == ""
    # Thawed, the call starts over, unless it was refused under the hold before it froze.
    for ask in wait_for(lambda: program.spoke() or core.supervisor.escalations()) or ():
        core.supervisor.answer(ask["id"], allow=False, by="test", reason="test")
    assert program.hear() == "ok 1"
    program.close()


def test_a_supervisor_that_hangs_is_replaced(core, wait_for):
    program = Program(core)
    hung = core.supervisor_pid()
    os.kill(hung, signal.SIGSTOP)
    program.tell()
    impatient = SupervisorClient(core.state, timeout=0.3)

    def replaced() -> bool:
        try:
            return impatient.status()["pid"] != hung
        except ClawbackError:
            return False

    wait_for(replaced, seconds=30)
    assert program.hear().startswith(("1 ", "ok "))  # it was refused by the shim, or came after the change
    program.close()


def test_it_is_beside_the_agents_and_ends_when_nobody_needs_it(core, wait_for):
    program = Program(core)
    supervisor = os.pidfd_open(core.supervisor_pid())
    if root := cgroups.discover().unified:
        assert core.supervisor_pid() in cgroups.processes(f"{root}/{cgroups.aside(core.group)}")
    core.stop()
    assert select.select([supervisor], [], [], 0.5)[0] == []  # an agent is left
    core.start()
    program.close()
    core.client.contain("alpha", Level.STOP, reason="test", by="test")
    wait_for(lambda: not core.supervisor.status()["supervised"])
    core.stop()
    assert select.select([supervisor], [], [], 0)[0]
    os.close(supervisor)


def test_it_ends_after_a_killed_core_and_the_last_agent(core):
    program = Program(core)
    supervisor = os.pidfd_open(core.supervisor_pid())
    core.kill()
    assert select.select([supervisor], [], [], 0.5)[0] == []
    program.close()
    for record in inventory.read_all(core.state)[0]:
        os.kill(record.pid, signal.SIGKILL)
    assert select.select([supervisor], [], [], 20)[0]
    os.close(supervisor)


def test_it_ends_when_its_state_is_gone(tmp_path):
    state = tmp_path / "state"
    state.mkdir()
    command = [sys.executable, "-m", "clawback.enforcement.supervise", str(state), "--linger", "600"]
    supervisor = subprocess.Popen(command)
    try:
        while not (state / "run" / "supervisor.sock").exists():
            assert supervisor.poll() is None
            time.sleep(0.01)
        shutil.rmtree(state)
        assert supervisor.wait(20) == 0
    finally:
        supervisor.kill()
        supervisor.wait()
