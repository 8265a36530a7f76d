"""Traced calls → registers for the denials that audit names, and events for what Landlock, a file's permissions or a
missing route refused, which no audit record names.
"""

from __future__ import annotations

import errno
import os
import socket
import time
from collections import OrderedDict, deque
from pathlib import Path

from clawback.enforcement.kernel.call_trace import TracedCall
from clawback.enforcement.kernel.syscalls import NAME
from clawback.enforcement.telemetry.roster import Roster, Tracked
from clawback.enforcement.telemetry.writer import TelemetryWriter
from clawback.model import Disposition, FileActivity, NetworkActivity, Severity

__all__ = ["HOLD_SECONDS", "Refusals"]

HOLD_SECONDS = 0.006
"""How long a call and its audit record wait for each other: some 0.1 ms as a rule, and events are due in 10 ms."""

_EARLIER_NS = 1_000_000  # audit's time is rounded down to a millisecond, so a call's is never before it

_MOST = 4096
_REPEATS = 4096
_REPEAT_NS = 600 * 1_000_000_000

_Key = tuple[int, int]


class Refusals:
    """Not thread-safe. A call is claimed by one audit record, or else reported by itself if it names a path or peer.

    The same path or peer, refused to the same agent by the same call, is reported once in ten minutes: programs ask
    again and again, and a habit must not look like a spike.
    """

    def __init__(self, roster: Roster, writer: TelemetryWriter) -> None:
        self._roster = roster
        self._writer = writer
        self._waiting: dict[_Key, deque[TracedCall]] = {}
        self._order: deque[TracedCall] = deque()
        self._told: OrderedDict[tuple[int, int, int, str], int] = OrderedDict()

    @property
    def pending(self) -> bool:
        """Something waits: call `flush` within `HOLD_SECONDS`."""
        return bool(self._order)

    def take(self, call: TracedCall) -> None:
        """Keep one for the audit record that may claim it."""
        self._waiting.setdefault((call.pid, call.number), deque()).append(call)
        self._order.append(call)
        if len(self._order) > _MOST:
            self._settle(self._order.popleft())

    def claim(self, pid: int, number: int, *, address: int, at_ns: int) -> TracedCall | None:
        """The registers of a denial: the oldest call of this process, number and instruction that is not older than its
        record. In a flood from one instruction, that is one of those of the same millisecond.
        """
        calls = self._waiting.get((pid, number))
        for at, call in enumerate(calls or ()):
            if call.address == address and call.time_ns >= at_ns - _EARLIER_NS:
                self._drop(call, at)
                return call
        return None

    def flush(self, *, everything: bool = False) -> None:
        """Report what nobody claimed in time."""
        limit = time.time_ns() - int(HOLD_SECONDS * 1e9)
        while self._order and (everything or self._order[0].time_ns <= limit):
            self._settle(self._order.popleft())

    def _drop(self, call: TracedCall, at: int) -> None:
        calls = self._waiting[call.pid, call.number]
        del calls[at]
        if not calls:
            del self._waiting[call.pid, call.number]

    def _settle(self, call: TracedCall) -> None:
        calls = self._waiting.get((call.pid, call.number), ())
        at = next((at for at, other in enumerate(calls) if other is call), -1)
        if at < 0:
            return  # claimed
        self._drop(call, at)
        if call.path:
            self._report(call, call.path.decode("utf-8", "backslashreplace"), None)
        elif call.peer:
            host, port = _peer(call.peer)
            if host:
                self._report(call, host, port)

    def _report(self, call: TracedCall, target: str, port: int | None) -> None:
        key = (call.uid, call.number, port or 0, target)
        told = self._told.pop(key, 0)
        self._told[key] = told if told and call.time_ns - told < _REPEAT_NS else call.time_ns
        if len(self._told) > _REPEATS:
            self._told.popitem(last=False)
        if told and self._told[key] == told:
            return
        name = NAME.get(call.number, str(call.number))
        why = errno.errorcode.get(call.error, str(call.error))
        exe = _exe(call.pid)

        def report(tracked: Tracked) -> None:
            if port is None:
                self._writer.emit(
                    FileActivity,
                    time_ns=call.time_ns,
                    activity_id=FileActivity.OPEN,
                    severity=Severity.LOW,
                    disposition=Disposition.BLOCKED,
                    path=target,
                    access=name,
                    pid=call.pid,
                    exe=exe,
                    message=f"{name} refused: {why}, by Landlock, a scope or the file's permissions",
                    **tracked.fields,
                )
            else:
                self._writer.emit(
                    NetworkActivity,
                    time_ns=call.time_ns,
                    activity_id=NetworkActivity.REFUSE,
                    severity=Severity.LOW,
                    disposition=Disposition.BLOCKED,
                    host=target,
                    port=port,
                    reason=f"{name} past the gateway: {why}, process {call.pid}",
                    message=f"{name} refused: {why}, by Landlock or for want of a route",
                    **tracked.fields,
                )

        self._roster.report(call.uid, report, at_ns=call.time_ns)


def _peer(raw: bytes) -> tuple[str, int | None]:
    """Host and port of a sockaddr; a Unix socket's path without a port; the empty string for anything else."""
    family = int.from_bytes(raw[:2], "little")
    port = int.from_bytes(raw[2:4])
    if family == socket.AF_INET and len(raw) >= 8:
        return socket.inet_ntop(socket.AF_INET, raw[4:8]), port
    if family == socket.AF_INET6 and len(raw) >= 24:
        return socket.inet_ntop(socket.AF_INET6, raw[8:24]), port
    if family == socket.AF_UNIX:
        abstract = raw[2:3] == b"\0"
        name = raw[3:] if abstract else raw[2:]
        return ("@" if abstract else "") + name.partition(b"\0")[0].decode("utf-8", "backslashreplace"), None
    return "", None


def _exe(pid: int) -> str:
    try:
        return os.fsencode(Path(f"/proc/{pid}/exe").readlink()).decode("utf-8", "backslashreplace")
    except OSError:
        return ""
