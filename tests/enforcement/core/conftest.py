"""A core of one's own: a process on a short state folder, a group of its own, everything gone at the end."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import pytest

from clawback.enforcement.core.claims import unclaimed_uid_base
from clawback.enforcement.core.client import CoreClient
from clawback.enforcement.kernel import cgroups
from clawback.enforcement.sandbox import inventory
from clawback.enforcement.sandbox.record import Sandbox
from clawback.errors import Unreachable
from clawback.model import AgentInfo, AgentState, Event, LaunchSpec
from clawback.model.ocsf import parse_line

POLICY = """\
apiVersion: openshell.nvidia.com/v1
kind: SandboxPolicy
metadata: {name: test}
spec:
  isolation: {network: restricted}
"""
PYTHON = "/usr/bin/python3"
CANARY = "/root/.aws/credentials"

T = TypeVar("T")


def until(what: Callable[[], T], *, seconds: float = 10.0, why: str = "it did not come true") -> T:
    """The first true thing that `what` returns, asked again and again."""
    end = time.monotonic() + seconds
    while not (found := what()):
        assert time.monotonic() < end, why
        time.sleep(0.005)
    return found


class RunningCore:
    def __init__(self, state: Path, group: str, uid_base: int, allow: dict[int, tuple[str, ...]], more: str) -> None:
        self.state = state
        self.group = group
        self.uid_base = uid_base
        self.allow = allow
        self.more = more
        self.process: subprocess.Popen[bytes] | None = None
        self.client = CoreClient(state / "run" / "core.sock", timeout=20.0)

    def start(self) -> None:
        code = (
            "import sys; from pathlib import Path; from clawback.enforcement.core.main import serve\n"
            "from clawback import log; log.configure()\n"
            "from clawback.enforcement.core.rules import ReleaseRules\n"
            f"serve(Path({str(self.state)!r}), cgroup={self.group!r}, uid_base={self.uid_base}, allow={self.allow!r},"
            f" canaries=({CANARY!r},), heartbeat_seconds=0.3, {self.more})"
        )
        self.process = subprocess.Popen([sys.executable, "-c", code])
        until(self._answers, seconds=60.0, why="the core did not come up")

    def _answers(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, "the core ended at its start"
        try:
            return self.client.health()["status"] == "ok"
        except Unreachable:
            return False

    def end(self, number: int = signal.SIGTERM) -> int:
        assert self.process is not None
        self.process.send_signal(number)
        return self.process.wait(15)

    def launch(self, code: str, *, agent: str = "", **more) -> tuple[AgentInfo, int]:
        """Start Python code as an agent; its standard output can be read from the descriptor."""
        read, write = os.pipe()
        null = os.open("/dev/null", os.O_RDWR)
        try:
            info = self.client.launch(spec(code, agent=agent, **more), stdio=(null, write, 2))
        finally:
            os.close(write)
            os.close(null)
        return info, read

    def events(self, *, agent: str = "") -> list[Event]:
        found = []
        path = self.state / "telemetry" / "sandbox.jsonl"
        for line in path.read_bytes().split(b"\n")[:-1]:
            event = parse_line(line, None)
            if not agent or event.agent == agent:
                found.append(event)
        return found

    def wait_for(self, test: Callable[[Event], bool], *, agent: str = "", why: str = "no such event") -> Event:
        return until(lambda: next((one for one in self.events(agent=agent) if test(one)), None), why=why)

    def until(self, what: Callable[[], T], **more) -> T:
        return until(what, **more)

    def records(self) -> tuple[Sandbox, ...]:
        return inventory.read_all(self.state)[0]

    def clean(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        records, _ = inventory.read_all(self.state)
        for record in records:
            if inventory.is_process(record.pid, record.start_ticks):
                os.kill(record.pid, signal.SIGKILL)
            if record.cgroup:
                with contextlib.suppress(OSError):  # gone, or going
                    Path(record.cgroup, "cgroup.freeze").write_text("0")
        for record in records:
            until(lambda record=record: inventory.state(record) is not AgentState.RUNNING)
            until(lambda record=record: not inventory.is_process(record.shim_pid, record.shim_start_ticks))
            inventory.remove(record)
        found = cgroups.discover()
        for root in (found.unified, *found.v1.values()):
            group = Path(root, self.group) if root else None
            if group and group.is_dir():
                until(lambda group=group: _rmdir(group), why=f"{group} is not empty")
        until(lambda: cgroups.remove_parent(found, self.group), why="a shim is left")


def spec(code: str, *, agent: str = "", **more) -> LaunchSpec:
    return LaunchSpec(
        agent=agent or f"agent-{secrets.token_hex(3)}",
        command=(PYTHON, "-u", "-c", code),
        policy="test",
        policy_version=1,
        policy_text=more.pop("policy_text", POLICY),
        **more,
    )


def _rmdir(group: Path) -> bool:
    try:
        for leaf in group.iterdir():
            if leaf.is_dir():
                leaf.rmdir()
        group.rmdir()
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True


def _make(allow: dict[int, tuple[str, ...]] | None = None, more: str = "") -> RunningCore:
    if os.geteuid() != 0:
        pytest.skip("needs root: outer user ids, cgroups and the kernel's audit")
    state = Path(tempfile.mkdtemp(prefix="cb-", dir="/tmp"))
    state.chmod(0o755)
    group = f"clawback-core-{secrets.token_hex(4)}"
    return RunningCore(state, group, unclaimed_uid_base(), allow or {}, more)


@pytest.fixture
def make_core() -> Iterator[Callable[..., RunningCore]]:
    """Cores that are not started yet; all that they made is gone at the end."""
    made: list[RunningCore] = []

    def make(allow: dict[int, tuple[str, ...]] | None = None, more: str = "") -> RunningCore:
        made.append(_make(allow, more))
        return made[-1]

    yield make
    for one in made:
        one.clean()
        shutil.rmtree(one.state)


@pytest.fixture
def core(make_core: Callable[..., RunningCore]) -> RunningCore:
    """One that is up."""
    started = make_core()
    started.start()
    return started


@pytest.fixture(scope="module")
def shared() -> Iterator[RunningCore]:
    """One that is up for all tests of a file, which leave it as it was."""
    started = _make()
    started.start()
    yield started
    started.clean()
    shutil.rmtree(started.state)


@pytest.fixture
def make_spec() -> Callable[..., LaunchSpec]:
    return spec
