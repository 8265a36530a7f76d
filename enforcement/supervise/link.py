"""The core's side: starts the supervisor when an agent first needs one, and again whenever it is gone."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import structlog

from clawback.enforcement.sandbox.record import Sandbox
from clawback.enforcement.supervise.client import SupervisorClient
from clawback.enforcement.supervise.desk import PACKET, trusted
from clawback.errors import ClawbackError, Unreachable

__all__ = ["SupervisorLink"]

_UP_SECONDS = 10.0
_LOOK_SECONDS = 2.0
_HANG_SECONDS = 5.0
_END_SECONDS = 1.0
_AGAIN_SECONDS = 0.5
_UCRED_PID = slice(0, 4)

_log = structlog.get_logger()


class SupervisorLink:
    """One thread, once an agent escalates. The supervisor outlives this process, and finds the agents by itself.

    `lost` is called, from that thread, when one that was there is gone: until the next one is up the shims refuse
    whatever is escalated.
    """

    def __init__(
        self,
        state: Path,
        *,
        cgroup: str = "",
        expiry_seconds: float = 60.0,
        lost: Callable[[str], None] | None = None,
    ) -> None:
        self._state = state.absolute()
        self._cgroup = cgroup
        self._expiry = expiry_seconds
        self._lost = lost
        self._client = SupervisorClient(self._state)
        self._process: subprocess.Popen[bytes] | None = None
        self._lock = threading.Lock()
        self._up = threading.Event()
        self._thread: threading.Thread | None = None
        self._closing = False
        self._wake = os.eventfd(0, os.EFD_CLOEXEC)

    @property
    def state(self) -> str:
        """`unneeded`, `up` or `down`."""
        if self._thread is None:
            return "unneeded"
        return "up" if self._up.is_set() else "down"

    def want(self) -> None:
        """An agent escalates, or did when an earlier core started it: have a supervisor from now on."""
        with self._lock:
            if self._thread is None and not self._closing:
                self._thread = threading.Thread(target=self._run, name="supervisor", daemon=True)
                self._thread.start()

    def attach(self, box: Sandbox) -> bool:
        """Have this instance supervised, before its first instruction. True where it is, or escalates nothing; False
        where nobody supervises it: what it escalates is refused then, until a supervisor finds it.
        """
        if "escalation" not in box.layers:
            return True
        self.want()
        if not self._up.wait(_UP_SECONDS):
            return False
        try:
            return self._client.attach(box.folder)
        except ClawbackError as error:
            _log.warning("not supervised", agent=box.agent, error=error.message)
            return False

    def close(self) -> None:
        """Stop looking. The supervisor goes on for as long as there are agents that it supervises."""
        with self._lock:
            self._closing = True
        os.eventfd_write(self._wake, 1)
        if self._thread is not None:
            self._thread.join(_UP_SECONDS)
        os.close(self._wake)

    # The thread ----------------------------------------------------------------

    def _run(self) -> None:
        while not self._closing:
            connection = self._connect()
            if connection is None:
                self._start()
                continue
            with connection:
                self._up.set()
                why = self._watch(connection)
                self._up.clear()
                if not why:
                    self._leave(connection)
            if why:
                _log.warning("supervisor lost", why=why)
                if self._lost is not None:
                    self._lost(why)

    def _leave(self, connection: socket.socket) -> None:
        """It ends, unless there are agents left; wait for that, or its group would still be in use."""
        try:
            connection.send(json.dumps({"do": "leave"}).encode())
            ending = json.loads(connection.recv(PACKET) or b"{}").get("ending")
        except (OSError, ValueError):
            return  # it is gone, or hangs: nothing to wait for
        if ending and self._process is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(_END_SECONDS)

    def _watch(self, connection: socket.socket) -> str:
        """Until it is gone; why, or empty when this core ends."""
        request = {"do": "attend"}
        poll = select.poll()
        poll.register(connection, select.POLLIN)
        poll.register(self._wake, select.POLLIN)
        while True:
            try:
                connection.send(json.dumps(request).encode())
                if not connection.recv(PACKET):
                    return "it ended"
            except TimeoutError:
                self._end_hung(connection)
                return f"it did not answer within {_HANG_SECONDS:g} s"
            except OSError as error:
                return f"it ended: {error.strerror}"
            request = {"do": "status", "agent": "-"}
            ready = {fd for fd, _ in poll.poll(_LOOK_SECONDS * 1000)}
            if self._closing:
                return ""
            if connection.fileno() in ready:
                return "it ended"

    def _connect(self) -> socket.socket | None:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        connection.settimeout(_HANG_SECONDS)
        try:
            folder = os.open(self._state / "run", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                connection.connect(f"/proc/self/fd/{folder}/supervisor.sock")
            finally:
                os.close(folder)
        except OSError:
            connection.close()
            return None
        if not trusted(connection):  # whoever listens there is not ours to ask, nor to end
            connection.close()
            return None
        return connection

    @staticmethod
    def _end_hung(connection: socket.socket) -> None:
        """Whoever listens there, by the kernel's word: its held calls wait for it, and the shims refuse them after."""
        credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
        with contextlib.suppress(ProcessLookupError):
            os.kill(int.from_bytes(credentials[_UCRED_PID], sys.byteorder), signal.SIGKILL)

    def _start(self) -> None:
        """Start one and wait until it answers; one that another core started and that is just coming up is as good."""
        if self._process is None or self._process.poll() is not None:
            self._process = subprocess.Popen(
                [
                    sys.executable,
                    "-m",
                    "clawback.enforcement.supervise",
                    str(self._state),
                    *("--expiry", str(self._expiry), "--group", self._cgroup),
                ],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                start_new_session=True,
                # A process's first environment stays readable in /proc: nothing of the core's goes there.
                env={"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8", "PYTHONDONTWRITEBYTECODE": "1"}
                | {name: os.environ[name] for name in ("PYTHONPATH",) if name in os.environ},
                cwd="/",
            )
        deadline = time.monotonic() + _UP_SECONDS
        while time.monotonic() < deadline and not self._closing:
            try:
                self._client.status("-")
                return
            except Unreachable:
                if self._process.poll() is not None:
                    break
                select.select([self._wake], [], [], 0.02)
        if not self._closing:
            select.select([self._wake], [], [], _AGAIN_SECONDS)
