"""Real sandboxes for tests: a spawner of our own, and a way to ask a Python program inside what it can do."""

from __future__ import annotations

import ctypes
import json
import os
import secrets
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from clawback.enforcement import native
from clawback.enforcement.core.claims import unclaimed_uid_base
from clawback.enforcement.kernel import cgroups
from clawback.enforcement.policy.types import SandboxPolicy
from clawback.enforcement.sandbox import inventory
from clawback.enforcement.sandbox.spawner import Launched, Spawner
from clawback.model import AgentState, LaunchSpec

CANARIES = ("/root/.aws/credentials", "/etc/clawback/credentials", "/usr/share/never-made")
PRELUDE = """
import ctypes, errno, json, os, socket, sys
C = ctypes.CDLL(None, use_errno=True)
def call(number, *arguments):
    ctypes.set_errno(0)
    result = C.syscall(number, *arguments)
    return errno.errorcode.get(ctypes.get_errno(), "?") if result == -1 else "ok"
def tried(action, *arguments):
    try:
        action(*arguments)
    except OSError as error:
        return errno.errorcode[error.errno]
    return "ok"
seen = {}
"""


def can_unshare() -> bool:
    """Whether user namespaces may be made here."""
    pid = os.fork()
    if pid == 0:
        os._exit(0 if ctypes.CDLL(None).unshare(0x10000000) == 0 else 1)
    return os.waitpid(pid, 0)[1] == 0


def until(condition: Callable[[], Any], *, seconds: float = 10.0) -> Any:
    """The condition's first true value; fails past the deadline."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, f"not within {seconds} s"
        time.sleep(0.005)
    return value


def spec(*command: str, agent: str = "alpha", **more: Any) -> LaunchSpec:
    return LaunchSpec(agent=agent, command=command, policy="test", policy_version=1, policy_text="", **more)


class Sandboxes:
    """Launches under one spawner, and ends what it launched."""

    def __init__(self, spawner: Spawner) -> None:
        self.spawner = spawner
        self._launched: list[Launched] = []

    def launch(
        self,
        *command: str,
        policy: SandboxPolicy | None = None,
        secrets: dict[str, str] | None = None,
        stdio: tuple[int, int, int] | None = None,
        **more: Any,
    ) -> Launched:
        launched = self.spawner.launch(
            spec(*command, **more), policy or SandboxPolicy(name="test"), secrets=secrets or {}, stdio=stdio
        )
        self._launched.append(launched)
        return launched

    def ask(self, script: str, **more: Any) -> dict[str, Any]:
        """Run Python inside; what it put into `seen`."""
        launched = self.launch(sys.executable, "-c", PRELUDE + script + "\nprint(json.dumps(seen))", **more)
        status = launched.wait(30)
        output = Path(launched.record.folder, "output.log").read_text()
        assert status == 0, output
        answer = json.loads(output.splitlines()[-1])
        assert isinstance(answer, dict)
        return answer

    def close(self) -> None:
        for launched in self._launched:
            record = launched.record
            if inventory.is_process(record.pid, record.start_ticks):
                os.kill(record.pid, 9)
            launched.close()
            until(lambda record=record: not inventory.is_process(record.shim_pid, record.shim_start_ticks))
            assert inventory.state(record) in {AgentState.EXITED, AgentState.LOST}
            assert inventory.remove(record)


@pytest.fixture(scope="session", autouse=True)
def _needs_namespaces() -> None:
    if not can_unshare():
        pytest.skip("this kernel or container lets nobody make user namespaces")


@pytest.fixture(name="until")
def until_fixture() -> Callable[..., Any]:
    return until


@pytest.fixture
def group() -> str:
    return f"clawback-sandbox-{secrets.token_hex(4)}"


@pytest.fixture(params=["native", "python"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """By which shim sandboxes are made: everything is shown of both."""
    if request.param == "native" and native.way().program is None:
        pytest.skip(native.way().why)
    monkeypatch.setenv(native.VARIABLE, request.param)
    return str(request.param)


@pytest.fixture
def sandboxes(way: str, state: Path, group: str) -> Iterator[Sandboxes]:
    with Spawner.start(state, cgroup=group, uid_base=unclaimed_uid_base(), canaries=CANARIES) as spawner:
        made = Sandboxes(spawner)
        yield made
        made.close()
    until(lambda: cgroups.remove_parent(cgroups.discover(), group))
