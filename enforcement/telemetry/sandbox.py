"""All that is reported about sandboxes: one thread reads the kernel's sources and writes `sandbox.jsonl`."""

from __future__ import annotations

import contextlib
import os
import select
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import structlog

from clawback.enforcement.kernel import audit
from clawback.enforcement.kernel.audit import AuditReader
from clawback.enforcement.kernel.canary_watch import CanaryWatch
from clawback.enforcement.kernel.process_events import ProcessEvents
from clawback.enforcement.telemetry.canaries import Canaries
from clawback.enforcement.telemetry.denials import TYPES, Denials
from clawback.enforcement.telemetry.processes import Processes
from clawback.enforcement.telemetry.roster import Roster, Tracked
from clawback.enforcement.telemetry.writer import TelemetryWriter
from clawback.model import Source

__all__ = ["SandboxTelemetry"]

T = TypeVar("T")

_TURN = 64
"""Audit records read at once."""

_log = structlog.get_logger()


class SandboxTelemetry:
    """Sources that cannot be opened (rootless, or a kernel without them) are missing, and `sources` says why."""

    def __init__(self, folder: Path, *, uid_base: int, landlock_audit: bool = False) -> None:
        self.writer = TelemetryWriter(folder, Source.SANDBOX)
        self.roster = Roster(uid_base)
        self.sources: dict[str, str] = {}
        self._denials = Denials(self.roster, self.writer)
        self._processes = Processes(self.roster, self.writer)
        self._processes_lock = threading.Lock()
        self._audit = self._open("system calls", lambda: AuditReader(types=TYPES))
        self._events = self._open("processes", ProcessEvents)
        self._watch = self._open("canaries", CanaryWatch)
        self._canaries = Canaries(self.writer, self._watch) if self._watch else None
        self._landlock(wanted=landlock_audit)
        self._seen: dict[str, int] = {}
        self._wake_read, self._wake_write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._thread = threading.Thread(target=self._run, name="telemetry", daemon=True)

    def start(self) -> None:
        """Begin to read."""
        self._thread.start()

    @property
    def alive(self) -> bool:
        """The thread runs."""
        return self._thread.is_alive()

    def close(self) -> None:
        """Write what is there, then stop."""
        os.write(self._wake_write, b"x")
        self._thread.join(5.0)
        for source in (self._audit, self._events, self._watch):
            if source is not None:
                source.close()
        os.close(self._wake_read)
        os.close(self._wake_write)
        self.writer.close()

    def add(self, tracked: Tracked, *, canaries: tuple[str, ...], pids: tuple[int, ...]) -> tuple[str, ...]:
        """Report on this instance from now on; returns the canaries that could not be watched."""
        with self._processes_lock:
            self._processes.adopt(tracked, pids)
        missed = self._canaries.place(tracked, canaries) if self._canaries else canaries
        self.roster.add(tracked)
        return missed

    def overflowed(self) -> int:
        """Count what the kernel lost since this was last asked, as far as it says, as the writer's losses."""
        lost = 0
        for name, source in (("audit", self._audit), ("processes", self._events), ("canaries", self._watch)):
            if source is not None:
                lost += source.overflows - self._seen.get(name, 0)
                self._seen[name] = source.overflows
        if self._audit is not None:
            try:
                total = audit.status().lost
                lost += total - self._seen.get("kernel", total)
                self._seen["kernel"] = total
            except OSError as error:
                self.sources["audit losses"] = f"unknown: {error.strerror}"
        if lost > 0:
            self.writer.lose("", lost)
        return lost

    def _open(self, name: str, make: Callable[[], T]) -> T | None:
        try:
            source = make()
        except OSError as error:
            self.sources[name] = f"off: {error.strerror}"
            _log.warning("telemetry source missing", source=name, error=error.strerror)
            return None
        self.sources[name] = "on"
        return source

    def _landlock(self, *, wanted: bool) -> None:
        try:
            if wanted and self._audit is not None and not audit.status().enabled:
                audit.enable()
            enabled = self._audit is not None and audit.status().enabled
        except OSError as error:
            self.sources["landlock"] = f"off: {error.strerror}"
            return
        self.sources["landlock"] = "on" if enabled else "off: the host's audit is off (core.landlock_audit)"

    def _run(self) -> None:
        with contextlib.suppress(PermissionError):
            # The core's other threads go first: a flood of denials must not stand before the order that ends it.
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 0)
        poll = select.poll()
        for source in (self._audit, self._events, self._watch):
            if source is not None:
                poll.register(source.fileno(), select.POLLIN)
        poll.register(self._wake_read, select.POLLIN)
        while True:
            ready = {descriptor for descriptor, _ in poll.poll()}
            try:
                self._read(ready)
            except Exception:
                # A defect in reading one record must not end the reading of all; poll comes back at once.
                _log.exception("telemetry failed on a record")
                self.writer.lose("", 1)
            if self._wake_read in ready:
                return

    def _read(self, ready: set[int]) -> None:
        # Canaries first: a flood of denials or forks must not delay the one report that needs no second.
        if self._watch is not None and self._canaries is not None and self._watch.fileno() in ready:
            for opened in self._watch.read():
                self._canaries.take(opened)
        if self._events is not None and self._events.fileno() in ready:
            with self._processes_lock:
                for event in self._events.read():
                    self._processes.take(event)
        if self._audit is not None and self._audit.fileno() in ready:
            count = 0
            began = time.monotonic()
            for record in self._audit.read(_TURN):
                self._denials.take(record)
                count += 1
            if count < _TURN:
                self._denials.flush()
            else:
                # A flood. Reading on without a pause would keep the interpreter from the order that ends it; the
                # kernel's buffer takes the records meanwhile, and what it cannot take is counted as lost.
                time.sleep(2 * (time.monotonic() - began))
