"""The core's side of sandbox making: keeps the zygote, a spare sandbox or two, and hands commands over."""

from __future__ import annotations

import json
import os
import secrets as random
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import structlog

from clawback.enforcement import native
from clawback.enforcement.kernel import cgroups, namespaces
from clawback.enforcement.policy.types import SandboxPolicy
from clawback.enforcement.sandbox import inventory, wire
from clawback.enforcement.sandbox.folder import Folder
from clawback.enforcement.sandbox.launch import launch
from clawback.enforcement.sandbox.launched import Launched
from clawback.enforcement.sandbox.plan import plan
from clawback.enforcement.sandbox.record import Sandbox
from clawback.enforcement.sandbox.shown import Ground
from clawback.enforcement.sandbox.slot import Slot
from clawback.enforcement.sandbox.spares import Spares
from clawback.enforcement.sandbox.uids import Uids
from clawback.errors import NotEnforced, Unreachable
from clawback.model import LaunchSpec

__all__ = ["Launched", "Spawner"]

_LOG = structlog.get_logger()
_LAUNCH_TIMEOUT = 30.0


def _written(state: Path) -> set[str]:
    """Folders that instances of earlier cores were allowed to write to, as their restrictions say."""
    found: set[str] = set()
    for record in inventory.read_all(state)[0]:
        try:
            given = json.loads(Path(record.folder, "restrictions.json").read_text())["write"]
        except (OSError, ValueError, KeyError, TypeError):
            _LOG.warning("restrictions unreadable", agent=record.agent, instance=record.instance)
            continue
        found |= {os.path.realpath(path) for path in given if path != "/tmp"}
    return found


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
        self._written = _written(state)
        self._spares = Spares(lambda: self._slot(self._fresh_uid()), spares)
        self._lock = threading.Lock()
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
        chosen = native.way()
        agents = state / "agents"
        agents.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(state / "spares", ignore_errors=True)  # of a core that was killed
        ours, theirs = socket.socketpair()
        with theirs:
            process = subprocess.Popen(
                [
                    sys.executable,
                    "-m",
                    "clawback.enforcement.sandbox.zygote",
                    str(theirs.fileno()),
                    cgroup,
                    str(chosen.program or ""),
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
            message, _ = wire.receive(ours)
        except (wire.Closed, OSError) as error:
            ours.close()
            process.kill()
            process.wait()
            raise Unreachable(f"the spawner did not start: {error}", hint="its own message is above") from None
        if "lacking" in message:
            ours.close()
            process.wait()
            raise NotEnforced(message["lacking"], hint=message["fix"])
        uids = Uids(state, uid_base) if namespaces.gives_ids(uid_base) else None
        spawner = cls(process, ours, state=state, group=cgroup, uids=uids, canaries=canaries, spares=spares)
        spawner._spares.start()
        return spawner

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the zygote and the spares. Agents run on."""
        self._spares.close()
        with self._lock:
            self._closed = True
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

    def _slot(self, uid: int) -> Slot:
        name = f"{time.strftime('%Y%m%dT%H%M%S', time.gmtime())}-{random.token_hex(4)}"
        sock = self._order({"op": "shim", "uid": uid, "name": name})
        try:
            # While the zygote and the shim are at work.
            return Slot(name, uid, sock, Folder(self._state / "spares", name))
        except BaseException:
            sock.close()
            raise

    def _fresh_uid(self) -> int:
        return self._uids.reserve() if self._uids else os.geteuid()

    def settle(self, timeout: float = 10.0) -> None:
        """Wait until the wanted spares are made and idle: for measuring. `TimeoutError` past `timeout` seconds."""
        self._spares.settle(timeout)

    def _take(self, agent: str) -> Slot:
        """A spare for an agent seen for the first time; for others a sandbox under the id that they have."""
        known = self._uids.known(agent) if self._uids else None
        if known is None and (spare := self._spares.take()):
            return spare
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
        job = plan(
            spec,
            policy,
            secrets=secrets,
            canaries=self._canaries,
            ground=Ground(
                state=str(self._state),
                agents=self._uids.given if self._uids else range(0),
                written=tuple(sorted(self._written)),
            ),
        )
        # Before it starts: from now on an agent decides what lies there.
        self._written |= {job.sources.get(path, path) for path, writable in job.binds if writable}
        slot = self._take(spec.agent)
        folder = self._state / "agents" / job.agent / slot.name
        job = replace(job, instance=slot.name, folder=str(folder), uid=slot.uid)
        if self._uids:
            self._uids.remember(job.agent, slot.uid)
        try:
            return launch(slot, job, secrets, stdio, prepared)
        finally:
            self._spares.replenish()

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
