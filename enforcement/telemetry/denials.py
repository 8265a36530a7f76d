"""Audit records → events: denied system calls with name and pid, and Landlock's refusals."""

from __future__ import annotations

import time
from collections import OrderedDict, deque
from collections.abc import Callable

from clawback.enforcement.kernel.audit import LANDLOCK_ACCESS, LANDLOCK_DOMAIN, SECCOMP, SYSCALL, AuditRecord
from clawback.enforcement.kernel.call_trace import TracedCall
from clawback.enforcement.kernel.syscalls import TABLES
from clawback.enforcement.telemetry.refusals import HOLD_SECONDS, Refusals
from clawback.enforcement.telemetry.roster import Roster, Tracked, uid_of
from clawback.enforcement.telemetry.writer import TelemetryWriter
from clawback.model import Disposition, FileActivity, KernelActivity, Severity

__all__ = ["TYPES", "Denials"]

TYPES = frozenset({SECCOMP, LANDLOCK_ACCESS, LANDLOCK_DOMAIN, SYSCALL})

# AUDIT_ARCH_* of linux/audit.h.
_ARCHITECTURES = {"c000003e": "x86_64", "c00000b7": "aarch64", "40000003": "i386"}
_RET_LOG = 0x7FFC0000
_UNKNOWN = "unknown"  # all numbers without a name are one call: an agent that makes them up must not fill its baseline
_DOMAINS = 4096
_PENDING = 1024


class Denials:
    """Not thread-safe; fed by one reader. Landlock's records name no process: each is joined to the SYSCALL record of
    the same event, or to the record that once introduced its domain.
    """

    def __init__(
        self,
        roster: Roster,
        writer: TelemetryWriter,
        *,
        refusals: Refusals | None = None,
        tracing: Callable[[], bool] = lambda: False,
        novel: Callable[[Tracked, str, int], bool] = lambda _tracked, _call, _at_ns: False,
        gated: bool = False,
    ) -> None:
        """`refusals` has the traced calls, while `tracing`; `novel` says whether a denial is news; `gated`: the kernel
        keeps each agent to a rate.
        """
        self._roster = roster
        self._writer = writer
        self._refusals = refusals
        self._tracing = tracing
        self._unclaimed: deque[tuple[float, AuditRecord]] = deque()
        self._novel = novel
        self._bucket = None if gated else ""
        self.last = float("-inf")
        """When an agent's call was last denied, on the monotonic clock."""
        self._names = {name: {number: call for call, number in table.items()} for name, table in TABLES.items()}
        self._domains: OrderedDict[str, AuditRecord] = OrderedDict()
        self._pending: OrderedDict[int, AuditRecord] = OrderedDict()

    def take(self, record: AuditRecord) -> None:
        """Turn one record into an event, or keep it until what it belongs to arrives."""
        if record.type == SECCOMP:
            self._seccomp(record)
        elif record.type == LANDLOCK_ACCESS:
            self._landlock_access(record)
        elif record.type == LANDLOCK_DOMAIN:
            self._landlock_domain(record)
        elif record.serial in self._pending:
            self._landlock(self._pending.pop(record.serial), record)

    @property
    def pending(self) -> bool:
        """Something waits: call `settle` within `HOLD_SECONDS`."""
        return bool(self._unclaimed)

    def settle(self, *, everything: bool = False) -> None:
        """Report what has its registers by now, or has waited for them long enough."""
        for _ in range(len(self._unclaimed)):
            until, record = self._unclaimed.popleft()
            call = self._claim(record)
            if call is not None or everything or time.monotonic() >= until:
                self._denied(record, call)
            else:
                self._unclaimed.append((until, record))

    def _seccomp(self, record: AuditRecord) -> None:
        if not self._roster.expected(record.number("uid")):
            return
        self.last = time.monotonic()
        call = self._claim(record)
        if call is None and self._tracing() and len(self._unclaimed) < _PENDING:
            # The kernel writes the record before the call returns, which is when it is traced.
            self._unclaimed.append((self.last + HOLD_SECONDS, record))
        else:
            self._denied(record, call)

    def _claim(self, record: AuditRecord) -> TracedCall | None:
        if self._refusals is None:
            return None
        pid, number = record.number("pid", 0), record.number("syscall")
        return self._refusals.claim(pid, number, address=record.address, at_ns=record.time_ns)

    def _denied(self, record: AuditRecord, traced: TracedCall | None) -> None:
        number = record.number("syscall")
        architecture = _ARCHITECTURES.get(record.fields.get("arch", ""), "unknown")
        known = self._names.get(architecture, {}).get(number)
        name = known or f"{architecture}:{number}"
        try:
            logged = int(record.fields.get("code", "0"), 16) & 0x7FFF0000 == _RET_LOG
        except ValueError:
            logged = False

        def report(tracked: Tracked) -> None:
            self._writer.emit(
                KernelActivity,
                bucket=self._bucket,
                time_ns=traced.time_ns if traced else record.time_ns,
                activity_id=KernelActivity.INVOKE,
                severity=Severity.LOW if logged else Severity.MEDIUM,
                disposition=Disposition.LOGGED if logged else Disposition.BLOCKED,
                syscall=name,
                number=number,
                pid=record.number("pid", 0),
                exe=record.fields.get("exe", ""),
                architecture=architecture,
                arguments=traced.arguments if traced else (),
                address=record.address,
                comm=record.fields.get("comm", ""),
                novel=not logged and self._novel(tracked, known or _UNKNOWN, record.time_ns),
                message=f"system call {name} {'logged' if logged else 'denied'} by the sandbox's filter",
                **tracked.fields,
            )

        # Audit's time is exact to a millisecond, and the tracer's to a nanosecond.
        self._roster.report(record.number("uid"), report, at_ns=traced.time_ns if traced else record.time_ns)

    def _landlock_access(self, record: AuditRecord) -> None:
        self._pending[record.serial] = record
        if len(self._pending) > _PENDING:
            # No SYSCALL record came (the host's rules may leave them out): the domain's owner is all there is to go by.
            self._from_domain(self._pending.popitem(last=False)[1])

    def _landlock_domain(self, record: AuditRecord) -> None:
        if record.fields.get("status") == "allocated":
            self._domains[record.fields.get("domain", "")] = record
            if len(self._domains) > _DOMAINS:
                self._domains.popitem(last=False)

    def flush(self) -> None:
        """Report what still waits for a SYSCALL record; called when the reader has nothing more to give."""
        while self._pending:
            self._from_domain(self._pending.popitem(last=False)[1])

    def _from_domain(self, record: AuditRecord) -> None:
        domain = self._domains.get(record.fields.get("domain", ""))
        if domain is not None:
            self._landlock(record, domain)

    def _landlock(self, record: AuditRecord, process: AuditRecord) -> None:
        blockers = record.fields.get("blockers", "")
        path = record.fields.get("path", "")
        pid = process.number("pid", 0)
        # A domain's record tells the user who made it, which is root where the sandbox's init restricted itself first.
        uid = process.number("uid")
        if self._roster.get(uid) is None:
            uid = uid_of(pid)
        target = path or ",".join(f"{key}={record.fields[key]}" for key in ("daddr", "dest") if key in record.fields)

        def report(tracked: Tracked) -> None:
            self._writer.emit(
                FileActivity,
                time_ns=record.time_ns,
                activity_id=FileActivity.OPEN,
                severity=Severity.MEDIUM,
                disposition=Disposition.BLOCKED,
                path=target,
                access=blockers.removeprefix("fs.") or "unknown",
                pid=pid,
                exe=process.fields.get("exe", ""),
                message="access refused by Landlock",
                **tracked.fields,
            )

        self._roster.report(uid, report, at_ns=record.time_ns)
