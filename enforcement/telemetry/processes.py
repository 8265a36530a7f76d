"""Forks, execs and exits of the host → events of the agents' processes, told apart by their outer user ids."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

from clawback.enforcement.kernel.process_events import ProcessEvent, What
from clawback.enforcement.telemetry.roster import Roster, Tracked, uid_of
from clawback.enforcement.telemetry.writer import TelemetryWriter
from clawback.log import redact_text
from clawback.model import ProcessActivity

__all__ = ["Processes"]

_MOST = 65_536
_TEXT = 4096


class Processes:
    """Not thread-safe; fed by one reader. Knows the pids of agents' processes from the moment they fork or exec.

    A fork is a Launch with the message `fork` and no program; an exec is a Launch with the message `exec`, its program
    and command line (what looks like a secret taken out). A process that is gone before it could be looked at keeps
    them empty: the kernel's event carries only pids.
    """

    def __init__(self, roster: Roster, writer: TelemetryWriter) -> None:
        self._roster = roster
        self._writer = writer
        self._known: dict[int, tuple[int, Tracked | None]] = {}

    def adopt(self, tracked: Tracked, pids: tuple[int, ...]) -> None:
        """Know processes that started before anybody listened."""
        for pid in pids:
            if uid_of(pid) == tracked.uid:
                self._known[pid] = (tracked.uid, tracked)

    def take(self, event: ProcessEvent) -> None:
        """Turn one kernel event into an event, if it is an agent's."""
        if event.what is What.FORK:
            known = self._known.get(event.parent)
            if known is not None and len(self._known) < _MOST:
                self._known[event.pid] = known
                self._launched(known, event.pid, ("", "", event.parent), "fork")
        elif event.what is What.EXEC:
            self._exec(event.pid)
        elif (known := self._known.pop(event.pid, None)) is not None:
            self._ended(known, event)

    def _exec(self, pid: int) -> None:
        known = self._known.get(pid)
        if known is None:
            uid = uid_of(pid)
            if not self._roster.expected(uid):
                return
            known = (uid, self._roster.get(uid))
            if len(self._known) < _MOST:
                self._known[pid] = known
        self._launched(known, pid, _look(pid), "exec")

    def _launched(self, known: tuple[int, Tracked | None], pid: int, looks: tuple[str, str, int], message: str) -> None:
        now = time.time_ns()
        exe, command, parent = looks

        def report(tracked: Tracked) -> None:
            self._writer.emit(
                ProcessActivity,
                time_ns=now,
                activity_id=ProcessActivity.LAUNCH,
                pid=pid,
                parent_pid=parent,
                exe=exe,
                command=command,
                message=message,
                **tracked.fields,
            )

        self._report(known, report, now)

    def _ended(self, known: tuple[int, Tracked | None], event: ProcessEvent) -> None:
        now = time.time_ns()

        def report(tracked: Tracked) -> None:
            self._writer.emit(
                ProcessActivity,
                time_ns=now,
                activity_id=ProcessActivity.TERMINATE,
                pid=event.pid,
                exit_code=event.exit_code,
                **tracked.fields,
            )

        self._report(known, report, now)

    def _report(self, known: tuple[int, Tracked | None], report: Callable[[Tracked], None], now: int) -> None:
        # A process stays its instance's, also when its end is heard after the next instance began.
        uid, tracked = known
        if tracked is not None:
            report(tracked)
        else:
            self._roster.report(uid, report, at_ns=now)


def _look(pid: int) -> tuple[str, str, int]:
    """(exe, command line, parent) of a process, as far as it is still there. The exe is as the sandbox names it."""
    exe, command, parent = "", "", 0
    try:
        exe = os.fsencode(Path(f"/proc/{pid}/exe").readlink()).decode("utf-8", "backslashreplace")
        parent = int(_read(pid, "stat").rpartition(b")")[2].split()[1])
        command = _read(pid, "cmdline").rstrip(b"\0").replace(b"\0", b" ").decode("utf-8", "backslashreplace")
    except (OSError, IndexError, ValueError):
        return exe, redact_text(command), parent  # it has ended
    return exe, redact_text(command), parent


def _read(pid: int, name: str) -> bytes:
    descriptor = os.open(f"/proc/{pid}/{name}", os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.read(descriptor, _TEXT)
    finally:
        os.close(descriptor)
