"""Small sandboxes with real agents in them: namespaces, a cgroup leaf, secrets, and the gateway's listener inside."""

from __future__ import annotations

import contextlib
import importlib
import json
import mmap
import os
import signal
import socket
import struct
import threading
import time
import traceback
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from clawback.enforcement.kernel import cgroups, libc, mounts, namespaces
from clawback.enforcement.quarantine import tree
from clawback.enforcement.sandbox.record import GATEWAY_PORT, Sandbox

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


def run_in_child(function: str, arguments: dict[str, Any]) -> dict[str, Any]:
    """A forked child with one thread, as `helper.Run` says."""
    module, _, name = function.partition(":")
    call = getattr(importlib.import_module(module), name)
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.close(reader)
            answer = {"answer": call(**json.loads(json.dumps(arguments)))}
        except BaseException:
            answer = {"failed": traceback.format_exc()}
        with os.fdopen(writer, "w") as pipe:
            json.dump(answer, pipe)
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as pipe:
        answer = json.loads(pipe.read() or '{"failed": "died"}')
    os.waitpid(pid, 0)
    assert "failed" not in answer, answer["failed"]
    return answer["answer"]


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
        from dataclasses import replace

        return replace(self.box, cgroup="", controllers={})


class Maker:
    """Makes sandboxes and takes them all away."""

    def __init__(self, state: Path) -> None:
        self._state = state
        self._groups = f"clawback-test-{uuid.uuid4().hex[:8]}"
        self._hierarchies = cgroups.discover()
        self._leaves: list[cgroups.Leaf] = []
        self._made: list[Made] = []
        self._pids: list[int] = []

    wait_until = staticmethod(wait_until)
    run = staticmethod(run_in_child)

    def __call__(
        self,
        agent: str,
        *,
        command: tuple[str, ...] = (),
        secrets: dict[str, str] | None = None,
        before: Callable[[], None] | None = None,
        environment: dict[str, str] | None = None,
    ) -> Made:
        """Run `agent`, a Python text (or `command`), as the first process. `before` runs in it before exec."""
        number = len(self._made)
        folder = self._state / f"agent-{number}"
        folder.mkdir()
        uid = 61_500 + number
        leaf = cgroups.make_leaf(self._hierarchies, self._groups, f"agent-{number}")
        self._leaves.append(leaf)
        program, board = folder / "agent.py", folder / "board"
        program.write_text(_PRELUDE + agent)
        board.write_bytes(bytes(8 * WORDS))
        os.chown(board, uid, uid)
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        argv = command or (PYTHON, str(program), str(board))
        outer = os.fork()
        if outer == 0:
            _be_sandbox(ours, theirs, leaf, argv, secrets or {}, before, environment or {}, folder)
        theirs.close()
        self._pids.append(outer)
        assert ours.recv(16) == b"unshared"
        namespaces.write_maps(outer, inside=1000, uid=uid, gid=uid)
        ours.send(b"mapped")
        pid, listener = 0, -1
        while not pid or listener < 0:
            message, fds, _flags, _address = socket.recv_fds(ours, 64, 1)
            assert message, (folder / "output.log").read_text()
            if fds:
                listener = fds[0]
            else:
                pid = struct.unpack("=I", message)[0]
        ours.close()
        mapped = mmap.mmap(os.open(board, os.O_RDWR), 8 * WORDS)
        box = Sandbox(
            agent=f"agent-{number}",
            instance=f"agent-{number}-1",
            pid=pid,
            start_ticks=tree.start_ticks(pid),
            shim_pid=outer,
            shim_start_ticks=tree.start_ticks(outer),
            uid=uid,
            cgroup=leaf.unified,
            controllers=leaf.controllers,
            folder=str(folder),
            policy="test",
            policy_version=1,
            command=argv,
            started_ns=time.time_ns(),
            secrets=tuple(secrets or ()),
        )
        made = Made(box, memoryview(mapped).cast("Q"), Gateway(socket.socket(fileno=listener)))
        made.gateway.start()
        self._made.append(made)
        return made

    def close(self) -> None:
        for pid in self._pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for made in self._made:
            with contextlib.suppress(ProcessLookupError):
                if tree.start_ticks(made.box.pid) == made.box.start_ticks:
                    os.kill(made.box.pid, signal.SIGKILL)
            made.gateway.stop()
        for leaf in self._leaves:
            if leaf.unified:
                Path(leaf.unified, "cgroup.kill").write_text("1")
        for made in self._made:
            wait_until(lambda box=made.box: tree.gone(box), "the sandbox ends")
        for pid in self._pids:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, 0)
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:  # the first processes: orphans come to this reaper
                pass
        for leaf in self._leaves:
            assert cgroups.remove_leaf(leaf)
        for root in (self._hierarchies.unified, *self._hierarchies.v1.values()):
            with contextlib.suppress(FileNotFoundError):
                Path(root, self._groups).rmdir()


def _be_sandbox(
    ours: socket.socket,
    theirs: socket.socket,
    leaf: cgroups.Leaf,
    argv: tuple[str, ...],
    secrets: dict[str, str],
    before: Callable[[], None] | None,
    environment: dict[str, str],
    folder: Path,
) -> None:
    """In the forked child: never returns."""
    try:
        ours.close()
        flags = 0
        for kind in ("user", "mnt", "pid", "net", "ipc", "uts"):
            flags |= namespaces.KINDS[kind]
        libc.unshare(flags)
        theirs.send(b"unshared")
        assert theirs.recv(16) == b"mapped"
        first = os.fork()
        if first:
            theirs.send(struct.pack("=I", first))
            theirs.close()
            os._exit(os.waitstatus_to_exitcode(os.waitpid(first, 0)[1]) & 0xFF)
        for group in (leaf.unified, *leaf.controllers.values()):
            Path(group, "cgroup.procs").write_text("0")
        output = os.open(folder / "output.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        os.setresgid(1000, 1000, 1000)
        os.setresuid(1000, 1000, 1000)
        mounts.make_private()
        mounts.proc("/proc")
        mounts.tmpfs("/run")
        Path("/run/secrets").mkdir()
        mounts.tmpfs("/run/secrets")
        for name, value in secrets.items():
            Path("/run/secrets", name).write_text(value)
        namespaces.loopback(up=True)
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", GATEWAY_PORT))
        listener.listen(64)
        socket.send_fds(theirs, [b"listener"], [listener.fileno()])
        listener.close()
        theirs.close()
        os.dup2(output, 1)
        os.dup2(output, 2)
        libc.prctl(38, 1)  # PR_SET_NO_NEW_PRIVS
        if before is not None:
            before()
        os.execve(argv[0], list(argv), {"PATH": "/usr/bin:/bin", **environment})  # noqa: S606 - no shell is meant
    except BaseException:
        traceback.print_exc()
    os._exit(99)


@pytest.fixture
def make(state: Path) -> Iterator[Maker]:
    """Makes sandboxes; all are gone at the test's end."""
    if os.geteuid() != 0:
        pytest.skip("makes cgroups and maps user ids: needs root")
    maker = Maker(state)
    yield maker
    maker.close()
