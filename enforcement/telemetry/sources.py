"""The kernel's sources, each opened if it can be, and why not where it cannot."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import structlog

from clawback.enforcement.kernel import audit
from clawback.enforcement.kernel.audit import AuditReader
from clawback.enforcement.kernel.audit_filter import AuditFilter
from clawback.enforcement.kernel.call_trace import CallTrace
from clawback.enforcement.kernel.canary_watch import CanaryWatch
from clawback.enforcement.kernel.process_events import ProcessEvents
from clawback.enforcement.telemetry.audit_wait import AuditWait
from clawback.enforcement.telemetry.denials import TYPES

__all__ = ["TRACES", "Sources"]

TRACES = ("off", "denials", "on")
"""When refused calls are traced: never; for ten seconds after each denied call; always."""

T = TypeVar("T")

_log = structlog.get_logger()


class Sources:
    """`state` says of each source `on`, or `off: REASON`; a source that is off is None here."""

    def __init__(self, uids: range, *, landlock_audit: bool, trace: str, wait: AuditWait, bound_wait: bool) -> None:
        self.state: dict[str, str] = {}
        self.gate = self._open("flood filter", lambda: AuditFilter(TYPES, uids, rate=100.0, burst=300.0))
        self.audit = self._open("system calls", lambda: AuditReader(types=TYPES, gate=self.gate))
        self.processes = self._open("processes", ProcessEvents)
        self.canaries = self._open("canaries", CanaryWatch)
        self.trace = self._open("registers", lambda: CallTrace(uids)) if trace != "off" else None
        if trace == "off":
            self.state["registers"] = "off: core.trace"
        elif self.trace is not None and self.audit is None and trace == "denials":
            self.state["registers"] = "off: no denial is seen that would switch it on"
        self._wait = wait
        self._bound_wait(wanted=bound_wait)
        self._landlock(wanted=landlock_audit, trace=trace)

    def close(self) -> None:
        """Close what is open."""
        for source in (self.audit, self.gate, self.processes, self.canaries, self.trace):
            if source is not None:
                source.close()
        self._wait.put_back()

    def _open(self, name: str, make: Callable[[], T]) -> T | None:
        try:
            source = make()
        except OSError as error:
            self.state[name] = f"off: {error.strerror}"
            _log.warning("telemetry source missing", source=name, error=error.strerror)
            return None
        self.state[name] = "on"
        return source

    def _bound_wait(self, *, wanted: bool) -> None:
        if self.audit is None:
            self.state["audit wait"] = "off: no system calls are heard of"
            return
        try:
            if wanted:
                said = self._wait.bound()
            else:
                self._wait.put_back()  # a core before this one may have been killed
                said = "off: core.bound_audit_wait"
        except OSError as error:
            said = f"off: {error.strerror or 'refused'}"
        self.state["audit wait"] = said
        if said != "on":
            _log.warning("an agent that is refused much may be stuck in the kernel for a while", reason=said)

    def _landlock(self, *, wanted: bool, trace: str) -> None:
        try:
            if wanted and self.audit is not None and not audit.status().enabled:
                audit.enable()
            enabled = self.audit is not None and audit.status().enabled
        except OSError as error:
            self.state["landlock"] = f"off: {error.strerror}"
            return
        if enabled or (self.trace is not None and trace == "on"):
            self.state["landlock"] = "on"
        elif self.trace is not None:
            self.state["landlock"] = "partial: for ten seconds after each denied call (core.trace: on, for always)"
        else:
            self.state["landlock"] = "off: the host's audit is off (core.landlock_audit, core.trace)"
