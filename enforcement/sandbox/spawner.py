"""The core's side of sandbox making: keeps the zygote, a spare sandbox or two, and hands commands over."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets as random
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import structlog

from clawback.enforcement.kernel import cgroups, namespaces
from clawback.enforcement.policy.types import SandboxPolicy
from clawback.enforcement.sandbox import wire
from clawback.enforcement.sandbox.inventory import parse
from clawback.enforcement.sandbox.job import Job
from clawback.enforcement.sandbox.plan import plan
from clawback.enforcement.sandbox.record import Sandbox
from clawback.enforcement.sandbox.uids import Uids
from clawback.errors import InvalidInput, NotEnforced, Unreachable
from clawback.model import LaunchSpec

__all__ = ["Launched", "Spawner"]

_LOG = structlog.get_logger()
_LAUNCH_TIMEOUT = 30.0
_REFILL_DELAY = 0.05


@dataclass(slots=True)
class Launched:
    """A started agent, its descriptors the caller's to close.

    `listener_fd` is the gateway's socket inside it, -1 where its policy has no network; `end` tells how it ended.
    """

    record: Sandbox
    listener_fd: int
    end: socket.socket

    def wait(self, timeout: float | None = None) -> int:
        """The command's exit status, 128 + n for signal n; for one caller, once.

        `TimeoutError` when it still runs, `Unreachable` when the shim is gone.
        """
        self.end.settimeout(timeout)
        try:
            message, _ = wire.receive(self.end)
        except (wire.Closed, ConnectionResetError):
            raise Unreachable(
                f"agent {self.record.agent}: its shim is gone", hint="`clawback agents` says what is left of it"
            ) from None
        return int(message["exit"]["status"])

    def close(self) -> None:
        """Let go of the descriptors; the agent runs on."""
        self.end.close()
        if self.listener_fd >= 0:
            os.close(self.listener_fd)
            self.listener_fd = -1


@dataclass(slots=True)
class _Slot:
    """A sandbox that waits for its command, or is being made."""

    name: str
    uid: int
    sock: socket.socket

    def is_ready(self) -> bool:
        """Whether its shim has said that it is finished and waits; the word stays unread."""
        try:
            return bool(self.sock.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT))
        except BlockingIOError:
            return False

    def dismiss(self) -> None:
        """Give it up and wait until nothing of it is left."""
        with self.sock, contextlib.suppress(OSError):
            self.sock.shutdown(socket.SHUT_WR)
            self.sock.settimeout(5)
            while self.sock.recv(4096):
                pass


class Spawner:
    """Thread-safe. One per core; closing it (or dying) ends the zygote and the spares, never a launched agent."""

    def __init__(
        self,
        process: subprocess.Popen[bytes],
        sock: socket.socket,
        *,
        state: Path,
        group: str,
        uids: Uids | None,
        canaries: Sequence[str],
        spares: int,
    ) -> None:
        self._process = process
        self._sock = sock
        self._state = state
        self._group = group
        self._uids = uids
        self._canaries = tuple(canaries)
        self._wanted = spares
        self._lock = threading.Lock()
        self._spares: list[_Slot] = []
        self._timer: threading.Timer | None = None
        self._closed = False

    @classmethod
    def start(
        cls,
        state: Path,
        *,
        cgroup: str = "clawback",
        uid_base: int = 1_900_000,
        canaries: Sequence[str] = (),
        spares: int = 1,
    ) -> Self:
        """Start the zygote. `state` is the core's state folder; `cgroup` the group that leaves go under.

        Without the right to give ids away, sandboxes get the caller's own; where groups are not its to make, none. The
        records say so.
        """
        state = state.absolute()  # the zygote works elsewhere
        agents = state / "agents"
        agents.mkdir(parents=True, exist_ok=True)
        spares_folder = state / "spares"
        shutil.rmtree(spares_folder, ignore_errors=True)  # of a core that was killed
        ours, theirs = socket.socketpair()
        with theirs:
            process = subprocess.Popen(
                [
                    sys.executable,
                    "-m",
                    "clawback.enforcement.sandbox.zygote",
                    str(theirs.fileno()),
                    cgroup,
                    str(spares_folder),
                ],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                # A process's first environment stays readable in /proc: nothing of the core's goes there.
                env={"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8", "PYTHONDONTWRITEBYTECODE": "1"}
                | {name: os.environ[name] for name in ("PYTHONPATH",) if name in os.environ},
                cwd="/",
            )
        ours.settimeout(_LAUNCH_TIMEOUT)
        try:
            wire.receive(ours)
        except (wire.Closed, OSError) as error:
            ours.close()
            process.kill()
            process.wait()
            raise Unreachable(f"the spawner did not start: {error}", hint="its own message is above") from None
        uids = Uids(state, uid_base) if namespaces.gives_ids(uid_base) else None
        spawner = cls(process, ours, state=state, group=cgroup, uids=uids, canaries=canaries, spares=spares)
        spawner.refill()
        return spawner

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the zygote and the spares. Agents run on."""
        with self._lock:
            self._closed = True
            if self._timer:
                self._timer.cancel()
            for slot in self._spares:
                slot.dismiss()
            self._spares.clear()
            self._sock.close()
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        cgroups.remove_parent(cgroups.discover(), self._group)

    @property
    def state(self) -> Path:
        """The core's state folder."""
        return self._state

    @property
    def pid(self) -> int:
        """The zygote's pid."""
        return self._process.pid

    def _order(self, request: dict[str, Any]) -> socket.socket:
        """Have the zygote fork for this request; the socket to what it forked."""
        ours, theirs = socket.socketpair()
        with theirs, self._lock:
            if self._closed:
                ours.close()
                raise Unreachable("the spawner is closed")
            try:
                wire.send(self._sock, request, [theirs.fileno()])
            except OSError as error:
                ours.close()
                raise Unreachable(f"the spawner is gone: {error}", hint="restart the core") from None
        return ours

    def _slot(self, uid: int, *, spare: bool = False) -> _Slot:
        name = f"{time.strftime('%Y%m%dT%H%M%S', time.gmtime())}-{random.token_hex(4)}"
        return _Slot(name, uid, self._order({"op": "shim", "uid": uid, "name": name, "spare": spare}))

    def _fresh_uid(self) -> int:
        return self._uids.reserve() if self._uids else os.geteuid()

    def refill(self) -> None:
        """Make spares up to the wanted number."""
        while not self._closed and len(self._spares) < self._wanted:
            slot = self._slot(self._fresh_uid(), spare=True)
            with self._lock:
                self._spares.append(slot)

    def settle(self, timeout: float = 10.0) -> None:
        """Wait until the wanted spares are made and idle: for measuring. `TimeoutError` past `timeout` seconds."""
        deadline = time.monotonic() + timeout
        while True:
            with self._lock:
                slots = list(self._spares)
            if len(slots) >= self._wanted and all(slot.is_ready() for slot in slots):
                return
            if time.monotonic() > deadline:
                raise TimeoutError("no spare sandbox became ready")
            time.sleep(0.002)

    def _refill_soon(self) -> None:
        """A little later: the agent just started has the processors first."""
        with self._lock:
            if self._closed or (self._timer and self._timer.is_alive()):
                return
            self._timer = threading.Timer(_REFILL_DELAY, self._refill_quietly)
            self._timer.daemon = True
            self._timer.start()

    def _refill_quietly(self) -> None:
        try:
            self.refill()
        except Unreachable as error:
            if not self._closed:
                _LOG.warning("no spare sandbox", reason=str(error))

    def _take(self, agent: str) -> _Slot:
        """A spare for an agent seen for the first time; for others a sandbox under the id that they have."""
        known = self._uids.known(agent) if self._uids else None
        if known is None:
            with self._lock:
                if self._spares:
                    return self._spares.pop(0)
        return self._slot(self._fresh_uid() if known is None else known)

    def launch(
        self,
        spec: LaunchSpec,
        policy: SandboxPolicy,
        *,
        secrets: Mapping[str, str],
        stdio: tuple[int, int, int] | None = None,
        prepared: Callable[[Sandbox], None] | None = None,
    ) -> Launched:
        """Start a command in a new sandbox; returns once it has been executed.

        `prepared` is called when everything but the command is there: its first instruction waits for the return, and
        never comes if that is an exception.
        Without `stdio` (descriptors, which stay the caller's) its output goes to `output.log`. `InvalidInput` for a bad
        order or a command that cannot be executed; `NotEnforced` where the sandbox could not be made.
        """
        # Everything about the order is checked before a sandbox is spent on it.
        job = plan(spec, policy, secrets=secrets, canaries=self._canaries)
        slot = self._take(spec.agent)
        try:
            return self._launch(slot, job, secrets, stdio, prepared)
        finally:
            self._refill_soon()

    def _launch(
        self,
        slot: _Slot,
        job: Job,
        secrets: Mapping[str, str],
        stdio: tuple[int, int, int] | None,
        prepared: Callable[[Sandbox], None] | None,
    ) -> Launched:
        folder = self._state / "agents" / job.agent / slot.name
        job = replace(job, instance=slot.name, folder=str(folder), uid=slot.uid)
        if self._uids:
            self._uids.remember(job.agent, slot.uid)
        slot.sock.settimeout(_LAUNCH_TIMEOUT)
        try:
            order = {"job": asdict(job), "secrets": dict(secrets), "prepared": prepared is not None}
            wire.send(slot.sock, order, stdio or ())
            message, fds = wire.receive(slot.sock)
            if "ready" in message:
                message, fds = wire.receive(slot.sock)
            if "prepared" in message and prepared:
                prepared(parse(message["prepared"]))
                wire.send(slot.sock, {})
                message, fds = wire.receive(slot.sock)
        except (wire.Closed, OSError) as error:
            slot.sock.close()
            raise NotEnforced(f"agent {job.agent}: the sandbox died while it was being made: {error}") from None
        except BaseException:
            slot.sock.close()  # `prepared` failed: the shim sees it and takes the sandbox down
            raise
        if "error" in message:
            slot.sock.close()
            if message["errno"] in {errno.ENOENT, errno.EACCES, errno.ENOEXEC} and job.command[0] in message["error"]:
                raise InvalidInput(
                    f"agent {job.agent}: command: {message['error']}",
                    hint="it must exist and be executable inside the sandbox; `readable` shows more of the host",
                )
            raise NotEnforced(
                f"agent {job.agent}: no sandbox: {message['error']}", hint="`clawback doctor` says what is missing"
            )
        listener = fds[0] if job.network else -1
        if not job.network:
            for fd in fds:
                os.close(fd)
        slot.sock.settimeout(None)
        return Launched(parse(message["record"]), listener, slot.sock)

    def run(
        self, function: str, arguments: Mapping[str, Any], *, fds: Sequence[int] = (), timeout: float = 10.0
    ) -> Any:
        """Call `module:function` (of the enforcement core) in a fresh single-threaded process; its JSON result.

        `fds` arrive as the argument `fds`, a list in the same order. It and its process group are killed at `timeout`
        seconds (`NotEnforced`). `OSError` where the function raised one; its other failures are `NotEnforced`.
        """
        with self._order({"op": "run", "timeout": timeout}) as sock:
            sock.settimeout(timeout + 3.0)
            try:
                wire.send(sock, {"function": function, "arguments": dict(arguments), "timeout": timeout}, fds)
                message, returned = wire.receive(sock)
            except (wire.Closed, ConnectionError, TimeoutError):
                raise NotEnforced(f"{function} did not finish within {timeout:g} s") from None
        for fd in returned:
            os.close(fd)
        if "error" not in message:
            return message["result"]
        if message.get("errno"):
            raise OSError(message["errno"], message["error"])
        _LOG.warning("helper failed", function=function, kind=message["kind"], trace=message.get("trace", ""))
        raise NotEnforced(f"{function}: {message['kind']}: {message['error']}")
