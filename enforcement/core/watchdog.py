"""See at once when a sandbox or its shim ends, and say every few seconds that the others are alive and as they were."""

from __future__ import annotations

import contextlib
import json
import os
import select
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import structlog

from clawback.enforcement.core.entry import Entry
from clawback.enforcement.telemetry.heartbeats import Heartbeats
from clawback.enforcement.telemetry.sandbox import SandboxTelemetry
from clawback.model import AgentState, Lifecycle, Severity

__all__ = ["Ending", "Watchdog", "read_ending"]

_GRACE_SECONDS = 0.5
"""How long what a shim wrote of its sandbox's end is looked for, after the sandbox's first process and it are gone."""
_SHIM_SECONDS = 10.0
"""How long a shim that lives has for it: on a busy machine its turn comes late, and a sandbox lost halts them all."""

_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Ending:
    """How a tree ended. `exit_status` is minus the signal's number where a signal ended it; None where nobody knows."""

    state: AgentState
    exit_status: int | None


def read_ending(folder: str) -> Ending | None:
    """What the shim wrote in `exit.json`; None where it wrote nothing."""
    try:
        body = json.loads(Path(folder, "exit.json").read_text(encoding="utf-8"))
        number = int(body["signal"])
        return Ending(AgentState.EXITED, -number if number else int(body["status"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None


class Watchdog:
    """One thread: `poll` on the pidfds of every first process and shim, and a timer.

    `ended` is called once for each entry, from this thread.
    """

    def __init__(
        self, telemetry: SandboxTelemetry, ended: Callable[[Entry, Ending], None], *, heartbeat_seconds: float
    ) -> None:
        self._telemetry = telemetry
        self._ended = ended
        self._beats = Heartbeats(telemetry, seconds=heartbeat_seconds)
        self._lock = threading.Lock()
        self._poll = select.epoll()  # each wake costs the same, however many are watched
        self._watched: dict[int, tuple[Entry, str]] = {}
        self._dying: dict[str, tuple[Entry, float]] = {}
        self._entries: dict[str, Entry] = {}
        self._closing = False
        self._wake_read, self._wake_write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._poll.register(self._wake_read, select.EPOLLIN)
        self._thread = threading.Thread(target=self._run, name="watchdog", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    @property
    def alive(self) -> bool:
        """The thread runs."""
        return self._thread.is_alive()

    def close(self) -> None:
        """Stop watching."""
        self._closing = True
        self._wake()
        self._thread.join(5.0)
        for descriptor in self._watched:
            os.close(descriptor)
        self._poll.close()
        os.close(self._wake_read)
        os.close(self._wake_write)

    def add(self, entry: Entry) -> None:
        """Watch this instance. One that has ended already is reported as ended."""
        box = entry.box
        with self._lock:
            self._entries[box.instance] = entry
            self._beats.add(box, entry.tracked)
            for name, pid, ticks in (
                ("sandbox", box.pid, box.start_ticks),
                ("shim", box.shim_pid, box.shim_start_ticks),
            ):
                descriptor = _open(pid, ticks)
                if descriptor is not None:
                    self._watched[descriptor] = (entry, name)
                    self._poll.register(descriptor, select.EPOLLIN)
                elif name == "sandbox":
                    self._dying[box.instance] = (entry, time.monotonic() + _GRACE_SECONDS)
                else:
                    self._shim_lost(entry)
        self._wake()

    def _wake(self) -> None:
        with contextlib.suppress(BlockingIOError):  # a full pipe wakes as well
            os.write(self._wake_write, b"x")

    def _run(self) -> None:
        while not self._closing:
            pause = 0.005 if self._dying else max(0.0, self._beats.due - time.monotonic())
            for descriptor, _ in self._poll.poll(pause + 0.001):
                if descriptor == self._wake_read:
                    with contextlib.suppress(BlockingIOError):
                        os.read(self._wake_read, 4096)
                else:
                    self._gone(descriptor)
            self._bury()
            try:
                with self._lock:
                    self._beats.beat()
            except Exception:
                _log.exception("heartbeat failed")  # the next one tries again; exits are still watched

    def _gone(self, descriptor: int) -> None:
        with self._lock:
            self._poll.unregister(descriptor)
            entry, name = self._watched.pop(descriptor)
            os.close(descriptor)
            if name == "sandbox":
                self._dying[entry.box.instance] = (entry, time.monotonic() + _GRACE_SECONDS)
            elif entry.box.instance in self._entries and entry.box.instance not in self._dying:
                # The shim ends by itself after its sandbox, whose own event may stand behind this one in the same poll.
                if Path(entry.box.folder, "exit.json").exists():
                    return
                self._shim_lost(entry)

    def _shim_lost(self, entry: Entry) -> None:
        self._telemetry.writer.emit(
            Lifecycle,
            activity_id=Lifecycle.STOP,
            severity=Severity.HIGH,
            component="shim",
            status="lost",
            message="the sandbox's shim is gone: nobody will tell how the agent ends",
            **entry.tracked.fields,
        )

    def _bury(self) -> None:
        now = time.monotonic()
        with self._lock:
            dying = list(self._dying.items())
        for instance, (entry, deadline) in dying:
            with self._lock:  # first: one that ends now has written it
                shim = any(one is entry and name == "shim" for one, name in self._watched.values())
            ending = read_ending(entry.box.folder)
            if ending is None and now < deadline + (_SHIM_SECONDS if shim else 0.0):
                continue
            ending = ending or Ending(AgentState.LOST, None)
            with self._lock:
                self._dying.pop(instance, None)
                self._entries.pop(instance, None)
                self._beats.remove(instance)
            lost = ending.state is AgentState.LOST
            self._telemetry.writer.emit(
                Lifecycle,
                activity_id=Lifecycle.STOP,
                severity=Severity.HIGH if lost else Severity.INFORMATIONAL,
                component="sandbox",
                status="lost" if lost else "exited",
                message="ended, and nobody knows how" if lost else f"exit status {ending.exit_status}",
                lost=self._telemetry.writer.take_lost(entry.box.agent),
                violations=self._telemetry.writer.violations.last_hour(entry.box.agent),
                **entry.tracked.fields,
            )
            self._ended(entry, ending)


def _open(pid: int, ticks: int) -> int | None:
    """A descriptor of exactly this process; None where it is gone or its number is another's."""
    try:
        descriptor = os.pidfd_open(pid)
    except OSError:
        return None
    try:
        # Read after the descriptor was opened: if it is still ours now, the descriptor is ours too.
        started = int(Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()[19])
    except OSError:
        started = -1
    if started != ticks:
        os.close(descriptor)
        return None
    return descriptor
