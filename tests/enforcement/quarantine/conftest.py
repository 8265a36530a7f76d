"""Real sandboxes with agents in them that try, a spawner for them, and a gateway that counts what reaches it."""

from __future__ import annotations

import mmap
import os
import shutil
import socket
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from clawback.enforcement.core.claims import unclaimed_uid_base
from clawback.enforcement.kernel import cgroups
from clawback.enforcement.policy.types import SandboxPolicy
from clawback.enforcement.quarantine import stop, tree
from clawback.enforcement.sandbox import inventory
from clawback.enforcement.sandbox.record import Sandbox
from clawback.enforcement.sandbox.spawner import Launched, Spawner
from clawback.model import LaunchSpec

PYTHON = "/usr/bin/python3"
WORDS = 32
_PRELUDE = """
import ctypes, errno, mmap, os, socket, struct, sys, threading, time
_file = open(sys.argv[1], "r+b")
board = memoryview(mmap.mmap(_file.fileno(), 256)).cast("Q")
def code(call, *args):
    try:
        result = call(*args)
    except OSError as error:
        return error.errno
    if hasattr(result, "close"):
        result.close()
    return 0
"""


def wait_until(true: Callable[[], bool], what: str, seconds: float = 10.0) -> None:
    """Poll with a deadline."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, f"not in {seconds} s: {what}"
        time.sleep(0.002)


@dataclass
class Gateway:
    """Accepts on the listener and counts what comes, with the time of the last byte."""

    listener: socket.socket
    received: int = 0
    accepted: int = 0
    aborted: int = 0
    last: float = 0.0
    threads: list[threading.Thread] = field(default_factory=list)

    def start(self) -> None:
        self.listener.settimeout(0.05)
        self.stopping = threading.Event()
        self._start(self._accept)

    def _start(self, call: Callable[..., None], *args: object) -> None:
        thread = threading.Thread(target=call, args=args, daemon=True)
        thread.start()
        self.threads.append(thread)

    def _accept(self) -> None:
        while not self.stopping.is_set():
            try:
                connection, _ = self.listener.accept()
            except TimeoutError:
                continue
            except OSError:
                return
            self.accepted += 1
            self._start(self._count, connection)

    def _count(self, connection: socket.socket) -> None:
        connection.settimeout(0.05)
        with connection:
            while not self.stopping.is_set():
                try:
                    data = connection.recv(1 << 18)
                except TimeoutError:
                    continue
                except OSError:
                    self.aborted += 1
                    return
                if not data:
                    return
                self.received += len(data)
                self.last = time.monotonic()

    def stop(self) -> None:
        self.stopping.set()
        for thread in self.threads:
            thread.join()
        self.listener.close()


@dataclass
class Made:
    """A running sandbox: `board` is 32 numbers that the agent writes and the test reads."""

    box: Sandbox
    board: memoryview
    gateway: Gateway

    def moves(self, index: int = 0, seconds: float = 10.0) -> None:
        """Wait for a number to change."""
        before = self.board[index]
        wait_until(lambda: self.board[index] != before, f"board[{index}] moves", seconds)

    def without_cgroup(self) -> Sandbox:
        """The same sandbox as a rootless core knows it."""
        return replace(self.box, cgroup="", controllers={})


class Maker:
    """Launches agents and takes them all away."""

    wait_until = staticmethod(wait_until)

    def __init__(self, spawner: Spawner, state: Path) -> None:
        self.run = spawner.run
        self._spawner = spawner
        self._state = state
        self._made: list[tuple[Made, Launched]] = []

    def __call__(
        self,
        agent: str,
        *,
        command: tuple[str, ...] = (),
        secrets: dict[str, str] | None = None,
        environment: dict[str, str] | None = None,
        stdio: tuple[int, int, int] | None = None,
    ) -> Made:
        """Run `agent`, a Python text (or `command`, with the board's path as its last argument)."""
        name = f"agent-{uuid.uuid4().hex[:8]}"
        folder = self._state / name
        folder.mkdir()
        folder.chmod(0o777)
        program, board = folder / "agent.py", folder / "board"
        program.write_text(_PRELUDE + agent)
        board.write_bytes(bytes(8 * WORDS))
        board.chmod(0o666)
        spec = LaunchSpec(
            agent=name,
            command=(*(command or (PYTHON, str(program))), str(board)),
            policy="test",
            policy_version=1,
            policy_text="",
            environment=environment or {},
            readable=(str(self._state / "programs"),),
            writable=(str(folder),),
        )
        policy = SandboxPolicy(name="test", filesystem="read-write", max_processes=64, max_cpu=2.0)
        launched = self._spawner.launch(spec, policy, secrets=secrets or {}, stdio=stdio)
        descriptor = os.open(board, os.O_RDWR)
        mapped = mmap.mmap(descriptor, 8 * WORDS)
        os.close(descriptor)
        made = Made(
            launched.record, memoryview(mapped).cast("Q"), Gateway(socket.socket(fileno=os.dup(launched.listener_fd)))
        )
        made.gateway.start()
        self._made.append((made, launched))
        return made

    def close(self) -> None:
        for made, launched in self._made:
            stop.apply(made.box)
            made.gateway.stop()
            launched.close()
        for made, _launched in self._made:
            box = made.box
            wait_until(lambda box=box: tree.gone(box), "the sandbox ends")
            wait_until(
                lambda box=box: not inventory.is_process(box.shim_pid, box.shim_start_ticks), "the shim ends", 20.0
            )
            wait_until(lambda box=box: inventory.remove(box), "its groups are removed")


@pytest.fixture(scope="module")
def spawner() -> Iterator[tuple[Spawner, Path]]:
    """One for a file's tests, with a state folder that agents can see parts of, and a cgroup of its own."""
    if os.geteuid() != 0:
        pytest.skip("makes cgroups and maps user ids: needs root")
    state = Path(tempfile.mkdtemp(prefix="cb-", dir="/tmp"))
    state.chmod(0o755)
    (state / "programs").mkdir()
    group = f"clawback-test-{uuid.uuid4().hex[:8]}"
    with Spawner.start(state, cgroup=group, uid_base=unclaimed_uid_base(), spares=0) as one:
        yield one, state
    shutil.rmtree(state)
    wait_until(lambda: cgroups.remove_parent(cgroups.discover(), group), f"{group} is removed")


@pytest.fixture
def make(spawner: tuple[Spawner, Path]) -> Iterator[Maker]:
    """Makes sandboxes; all are gone at the test's end."""
    maker = Maker(*spawner)
    yield maker
    maker.close()


@pytest.fixture
def programs(spawner: tuple[Spawner, Path]) -> Path:
    """A folder that agents see, for programs of their own."""
    return spawner[1] / "programs"
