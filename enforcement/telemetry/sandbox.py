"""All that is reported about sandboxes: one thread reads the kernel's sources and writes `sandbox.jsonl`.

A thread suffices because the kernel bounds what reaches it: an agent that denies without end is cut to its rate before
the socket's buffer, and the thread stands behind all others of the core. `benches/telemetry.py` measures that.
"""

from __future__ import annotations

import contextlib
import os
import select
import threading
import time
from pathlib import Path

import structlog

from clawback.enforcement.kernel import audit
from clawback.enforcement.telemetry.audit_wait import AuditWait
from clawback.enforcement.telemetry.baseline import Baselines
from clawback.enforcement.telemetry.canaries import Canaries
from clawback.enforcement.telemetry.denials import Denials
from clawback.enforcement.telemetry.losses import Losses
from clawback.enforcement.telemetry.processes import Processes
from clawback.enforcement.telemetry.refusals import HOLD_SECONDS, Refusals
from clawback.enforcement.telemetry.roster import UIDS, Roster, Tracked
from clawback.enforcement.telemetry.sources import Sources
from clawback.enforcement.telemetry.tracer import Tracer
from clawback.enforcement.telemetry.writer import TelemetryWriter
from clawback.model import Source

__all__ = ["SandboxTelemetry"]

_TURN = 64
"""Audit records read at once."""

_NICE = -10
_COUNT_SECONDS = 1.0
_SAVE_SECONDS = 0.05  # of each of those, for writing baselines down

_log = structlog.get_logger()


class SandboxTelemetry:
    """Sources that cannot be opened (rootless, or a kernel without them) are missing, and `sources` says why.

    `trace` is one of `sources.TRACES`.
    """

    def __init__(
        self,
        folder: Path,
        *,
        uid_base: int,
        landlock_audit: bool = False,
        trace: str = "denials",
        bound_audit_wait: bool = True,
    ) -> None:
        self.writer = TelemetryWriter(folder, Source.SANDBOX)
        self.roster = Roster(uid_base)
        self._from = Sources(
            range(uid_base, uid_base + UIDS),
            landlock_audit=landlock_audit,
            trace=trace,
            wait=AuditWait(folder.parent / "audit-wait"),
            bound_wait=bound_audit_wait,
        )
        self._refusals = Refusals(self.roster, self.writer)
        self._baselines = Baselines(folder.parent / "baselines")
        self._baselines_lock = threading.Lock()
        self._denials = Denials(
            self.roster,
            self.writer,
            refusals=self._refusals,
            tracing=self._tracing,
            novel=self._is_novel,
            gated=self._from.gate is not None,
        )
        self._tracer = self._make_tracer(always=trace == "on")
        self._processes = Processes(self.roster, self.writer)
        self._processes_lock = threading.Lock()
        self._canaries = Canaries(self.writer, self._from.canaries) if self._from.canaries else None
        self._losses = Losses(self.writer, self.roster)
        self._losses_lock = threading.Lock()
        self._lost_before = self._host_lost()
        self._wake_read, self._wake_write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._thread = threading.Thread(target=self._run, name="telemetry", daemon=True)

    @property
    def sources(self) -> dict[str, str]:
        """Name → `on`, or why not."""
        return self._from.state

    def start(self) -> None:
        """Begin to read."""
        self._thread.start()
        if self._tracer is not None:
            self._tracer.start()

    @property
    def alive(self) -> bool:
        """The thread runs."""
        return self._thread.is_alive()

    def close(self) -> None:
        """Write what is there, then stop."""
        if self._tracer is not None:
            self._tracer.close()
        os.write(self._wake_write, b"x")
        self._thread.join(5.0)
        with self._baselines_lock:
            self._baselines.save()
        self._from.close()
        os.close(self._wake_read)
        os.close(self._wake_write)
        self.writer.close()

    def add(self, tracked: Tracked, *, canaries: tuple[str, ...], pids: tuple[int, ...]) -> tuple[str, ...]:
        """Report on this instance from now on; returns the canaries that could not be watched."""
        with self._processes_lock:
            self._processes.adopt(tracked, pids)
        missed = self._canaries.place(tracked, canaries) if self._canaries else canaries
        with self._baselines_lock:
            self._baselines.started(tracked)
        self.roster.add(tracked)
        return missed

    def _make_tracer(self, *, always: bool) -> Tracer | None:
        def failed(why: str) -> None:
            self.sources["registers"] = why

        if self._from.trace is None:
            return None
        return Tracer(self._from.trace, always=always, last=lambda: self._denials.last, failed=failed)

    def _tracing(self) -> bool:
        return self._from.trace is not None and self._from.trace.attached

    def _is_novel(self, tracked: Tracked, call: str, at_ns: int) -> bool:
        with self._baselines_lock:
            return self._baselines.denied(tracked, call, at_ns)

    def overflowed(self) -> int:
        """Count what was lost since this was last asked, as far as the kernel says, as the writer's losses."""
        sources, losses = self._from, self._losses
        with self._losses_lock:
            lost = 0
            for name, source in (("audit", sources.audit), ("processes", sources.processes)):
                if source is not None:
                    lost += losses.total(name, source.overflows)
            for name, ring in (("canaries", sources.canaries), ("registers", sources.trace)):
                if ring is not None:
                    lost += losses.total(name, ring.overflows)
            if sources.audit is not None:
                lost += losses.total("host audit", self._host_lost(), first=self._lost_before)
            if sources.gate is not None:
                # Denials that the kernel kept back were denials all the same.
                lost += losses.by_agent("rate", sources.gate.counted(), refused=self.writer.violations.add)
            return lost

    def _host_lost(self) -> int:
        if self._from.audit is None:
            return 0
        try:
            return audit.status().lost
        except OSError as error:
            self.sources["audit losses"] = f"unknown: {error.strerror}"
            return 0

    def _run(self) -> None:
        with contextlib.suppress(PermissionError):
            # The core's other threads go first: a flood of denials must not stand before the order that ends it. Where
            # the kernel cuts floods, before the agents: a rogue one must not starve the report about it.
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICE if self._from.gate is not None else 0)
        try:
            self._follow()
        finally:
            if self._from.canaries is not None:
                # Whoever opens a decoy waits for an answer. With nobody left to give one, the kernel must.
                self._from.canaries.close()

    def _follow(self) -> None:
        poll = select.poll()
        sources = self._from
        for source in (sources.audit, sources.processes, sources.canaries, sources.trace):
            if source is not None:
                poll.register(source.fileno(), select.POLLIN)
        poll.register(self._wake_read, select.POLLIN)
        due = 0.0
        while True:
            waiting = self._refusals.pending or self._denials.pending
            pause = HOLD_SECONDS / 2 if waiting else _COUNT_SECONDS
            ready = {descriptor for descriptor, _ in poll.poll(pause * 1e3)}
            try:
                self._read(ready)
                self._denials.settle()
                self._refusals.flush()
                if time.monotonic() >= due:
                    due = time.monotonic() + _COUNT_SECONDS
                    self._tend()
            except Exception:
                # A defect in reading one record must not end the reading of all; poll comes back at once.
                _log.exception("telemetry failed on a record")
                self.writer.lose("", 1, "defect")
            if self._wake_read in ready:
                self._denials.settle(everything=True)
                self._refusals.flush(everything=True)
                return

    def _tend(self) -> None:
        """Once a second: count what the kernel kept back, and write baselines down."""
        self.overflowed()
        with self._baselines_lock:
            self._baselines.save(_SAVE_SECONDS)

    def _read(self, ready: set[int]) -> None:
        sources = self._from
        # Canaries first: a flood of denials or forks must not delay the one report that needs no second.
        if sources.canaries is not None and self._canaries is not None and sources.canaries.fileno() in ready:
            for opened in sources.canaries.read():
                self._canaries.take(opened)
        if sources.processes is not None and sources.processes.fileno() in ready:
            with self._processes_lock:
                for event in sources.processes.read():
                    self._processes.take(event)
        if sources.trace is not None:  # before the audit records that claim the calls, and whether poll saw it or not
            for call in sources.trace.read(_TURN * 2):
                self._refusals.take(call)
        if sources.audit is not None and sources.audit.fileno() in ready:
            self._read_audit(sources.audit)

    def _read_audit(self, source: audit.AuditReader) -> None:
        count = 0
        began = time.monotonic()
        before = self._denials.last
        for record in source.read(_TURN):
            self._denials.take(record)
            count += 1
        if self._tracer is not None and self._denials.last != before:
            self._tracer.nudge()  # from the next denial on, with registers
        if count < _TURN:
            self._denials.flush()
        else:
            # A flood. Reading on without a pause would keep the interpreter from the order that ends it; the
            # kernel's buffer takes the records meanwhile, and what it cannot take is counted as lost.
            time.sleep(2 * (time.monotonic() - began))
