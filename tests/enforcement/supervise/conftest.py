"""Agents whose policy escalates, under a spawner and a supervisor of our own."""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from clawback.enforcement.core.claims import unclaimed_uid_base
from clawback.enforcement.kernel import cgroups
from clawback.enforcement.policy.calls import CallAction, CallRule, SyscallPolicy
from clawback.enforcement.policy.escalation import Decision, EscalationRule
from clawback.enforcement.policy.types import SandboxPolicy
from clawback.enforcement.sandbox import inventory
from clawback.enforcement.sandbox.record import Sandbox
from clawback.enforcement.sandbox.spawner import Launched, Spawner
from clawback.enforcement.supervise.client import SupervisorClient
from clawback.errors import Unreachable
from clawback.model import LaunchSpec

PRELUDE = """
import ctypes, errno, json, os, signal, socket, sys, threading, time
C = ctypes.CDLL(None, use_errno=True)
def tried(action, *arguments):
    try:
        action(*arguments)
    except OSError as error:
        return errno.errorcode[error.errno]
    return "ok"
def say(what):
    sys.stdout.write(json.dumps(what) + "\\n"); sys.stdout.flush()
"""


def can_unshare() -> bool:
    pid = os.fork()
    if pid == 0:
        os._exit(0 if ctypes.CDLL(None).unshare(0x10000000) == 0 else 1)
    return os.waitpid(pid, 0)[1] == 0


def wait_for(condition: Callable[[], Any], *, seconds: float = 15.0) -> Any:
    """The condition's first true value; fails past the deadline."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, f"not within {seconds} s"
        time.sleep(0.005)
    return value


def rule(*names: str, decision: str = "allow", **more: Any) -> EscalationRule:
    return EscalationRule(names=names, decision=Decision(decision), **more)


def policy(*names: str, rules: tuple[EscalationRule, ...] = (), **more: Any) -> SandboxPolicy:
    calls = SyscallPolicy(rules=(CallRule(names=names, action=CallAction.ESCALATE),))
    return SandboxPolicy(name="test", syscalls=calls, escalations=rules, **more)


def _whole_lines(path: Path) -> list[dict[str, Any]]:
    text = path.read_text()
    return [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()]  # the last may be being written


class Agent:
    """One launched agent that speaks JSON lines on its output, and is told by lines on its input."""

    def __init__(self, launched: Launched, told: int, output: int) -> None:
        self.launched = launched
        self.record = launched.record
        self._told = told
        self._lines = os.fdopen(output, "rb")

    def tell(self, text: str = "go") -> None:
        os.write(self._told, text.encode() + b"\n")

    def hear(self) -> Any:
        line = self._lines.readline()
        assert line, "the agent ended: " + str(self.launched.wait(10))
        return json.loads(line)

    def close(self) -> None:
        with contextlib.suppress(OSError):
            os.close(self._told)
        self._lines.close()
        if inventory.is_process(self.record.pid, self.record.start_ticks):
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.record.pid, signal.SIGKILL)
        if self.record.cgroup:
            with contextlib.suppress(OSError):  # gone, or going
                Path(self.record.cgroup, "cgroup.freeze").write_text("0")
        self.launched.close()
        wait_for(lambda: not inventory.is_process(self.record.shim_pid, self.record.shim_start_ticks))
        assert inventory.remove(self.record)


class Scene:
    def __init__(self, state: Path, spawner: Spawner) -> None:
        self.state = state
        self.spawner = spawner
        self.client = SupervisorClient(state)
        self.supervisor: subprocess.Popen[bytes] | None = None
        self._agents: list[Agent] = []

    def supervise(self, *, expiry: float = 60.0) -> None:
        self.supervisor = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "clawback.enforcement.supervise",
                str(self.state),
                "--expiry",
                str(expiry),
                "--linger",
                "60",
            ],
            start_new_session=True,
        )
        wait_for(self.answers)

    def answers(self) -> bool:
        try:
            return bool(self.client.status()["pid"])
        except Unreachable:
            assert self.supervisor is not None
            assert self.supervisor.poll() is None, "the supervisor ended"
            return False

    def kill_supervisor(self) -> None:
        assert self.supervisor is not None
        self.supervisor.kill()
        self.supervisor.wait()
        self.supervisor = None

    def launch(
        self, script: str, given: SandboxPolicy, *, agent: str = "alpha", attach: bool = True, **more: Any
    ) -> Agent:
        def prepared(box: Sandbox) -> None:
            if attach:
                assert self.client.attach(box.folder)

        inner, told = os.pipe()
        output, outer = os.pipe()
        launched = self.spawner.launch(
            LaunchSpec(
                agent=agent,
                command=(sys.executable, "-c", PRELUDE + script),
                policy="test",
                policy_version=1,
                policy_text="",
                **more,
            ),
            given,
            secrets={},
            stdio=(inner, outer, 2),
            prepared=prepared,
        )
        os.close(inner)
        os.close(outer)
        made = Agent(launched, told, output)
        self._agents.append(made)
        return made

    def pending(self, count: int = 1) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []

        def enough() -> bool:
            found[:] = self.client.escalations()
            return len(found) >= count

        wait_for(enough)
        return found

    def decisions(self) -> list[dict[str, Any]]:
        return _whole_lines(self.state / "supervise/decisions.jsonl")

    def events(self) -> list[dict[str, Any]]:
        return _whole_lines(self.state / "telemetry/sandbox.jsonl")

    def close(self) -> None:
        try:
            for agent in self._agents:
                agent.close()
        finally:
            self._end_supervisor()

    def _end_supervisor(self) -> None:
        if self.supervisor is not None:
            self.supervisor.terminate()
            try:
                assert self.supervisor.wait(10) == 0
            finally:
                self.supervisor.kill()
                self.supervisor.wait()


@pytest.fixture(scope="session", autouse=True)
def _needs_namespaces() -> None:
    if not can_unshare():
        pytest.skip("this kernel or container lets nobody make user namespaces")


@pytest.fixture
def scene(state: Path) -> Iterator[Scene]:
    group = f"clawback-supervise-{secrets.token_hex(4)}"
    with Spawner.start(state, cgroup=group, uid_base=unclaimed_uid_base(), spares=0) as spawner:
        made = Scene(state, spawner)
        try:
            yield made
        finally:
            made.close()
    wait_for(lambda: cgroups.remove_parent(cgroups.discover(), group))


@pytest.fixture(name="wait_for")
def wait_for_fixture() -> Callable[..., Any]:
    return wait_for


@pytest.fixture(name="policy")
def policy_fixture() -> Callable[..., SandboxPolicy]:
    return policy


@pytest.fixture(name="rule")
def rule_fixture() -> Callable[..., EscalationRule]:
    return rule
