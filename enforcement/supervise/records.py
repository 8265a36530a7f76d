"""What became of each escalated call: the sandbox's telemetry, and a log of decisions that is on disk."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from clawback.enforcement.sandbox.record import Sandbox
from clawback.enforcement.supervise.subject import Subject
from clawback.enforcement.telemetry.rate import RateLimit
from clawback.enforcement.telemetry.writer import TelemetryWriter
from clawback.model import Disposition, KernelActivity, Lifecycle, Severity, Source

__all__ = ["Records", "bounded"]

_ORDINARY_RATE, _ORDINARY_BURST = 20.0, 100.0
_TEXT = 400


def bounded(text: object, limit: int = _TEXT) -> str:
    """Text that an agent may have chosen, fit to be shown: printable, and of a length."""
    plain = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in str(text)[: limit + 1])
    return plain if len(plain) <= limit else plain[: limit - 1] + "…"


class Records:
    """Rules decide often: of what they allow 20 a second for each agent are written, the rest is counted in the next.

    Refusals go to telemetry at the writer's own rate. What a person decided is flushed before the agent sees it.
    """

    def __init__(self, state: Path) -> None:
        self.writer = TelemetryWriter(state / "telemetry", Source.SANDBOX)
        folder = state / "supervise"
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._log = os.open(
            folder / "decisions.jsonl", os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600
        )
        self._limit = RateLimit(_ORDINARY_RATE, _ORDINARY_BURST)
        self._unwritten: dict[tuple[str, bool], int] = {}

    def decided(
        self, box: Sandbox, subject: Subject, *, allowed: bool, by: str, reason: str = "", ask: str = "", durable: bool
    ) -> None:
        """Write one decision. `ask` is the id of the question that a person answered. `OSError` if a durable one
        could not be written: then it must not take effect.
        """
        key = (box.agent, allowed)
        if not durable and not self._limit.allow(key):
            self._unwritten[key] = self._unwritten.get(key, 0) + 1
            if not allowed:
                self._event(box, subject, allowed=False, text=f"escalated: denied by {by}")
            return
        more = self._unwritten.pop(key, 0)
        text = f"escalated: {'allowed' if allowed else 'denied'} by {by}"
        text += "".join(f"; {name} {bounded(value, 200)}" for name, value in subject.shown.items())
        text += f"; {reason}" if reason else ""
        text += f"; {more} more like this were not written" if more else ""
        line = {
            "time_ns": time.time_ns(),
            "agent": box.agent,
            "instance": box.instance,
            "call": subject.name,
            "arguments": {name: bounded(value) for name, value in subject.shown.items()},
            "pid": subject.thread.pid,
            "exe": bounded(subject.thread.exe),
            "allowed": allowed,
            "by": by,
            "reason": reason,
            "ask": ask,
            "unwritten": more,
        }
        self._append(line, durable=durable)
        self._event(box, subject, allowed=allowed, text=text)

    def ordered(self, box: Sandbox, status: str, *, by: str, reason: str) -> None:
        """Write an order about an agent, such as refusing everything; flushed."""
        fields = {"time_ns": time.time_ns(), "agent": box.agent, "instance": box.instance, "order": status, "by": by}
        self._append(fields | {"reason": reason}, durable=True)
        self.say(box, status, message=f"by {by}: {reason}")

    def say(self, box: Sandbox, status: str, *, message: str, severity: Severity = Severity.INFORMATIONAL) -> None:
        """Write a lifecycle event of the agent's supervision."""
        self.writer.emit(
            Lifecycle,
            activity_id=Lifecycle.OTHER,
            severity=severity,
            component="supervision",
            status=status,
            message=bounded(message, 800),
            **_of(box),
        )

    def close(self) -> None:
        """Close the files."""
        os.close(self._log)
        self.writer.close()

    def _append(self, line: Mapping[str, object], *, durable: bool) -> None:
        os.write(self._log, json.dumps(line).encode() + b"\n")
        if durable:
            os.fdatasync(self._log)

    def _event(self, box: Sandbox, subject: Subject, *, allowed: bool, text: str) -> None:
        self.writer.emit(
            KernelActivity,
            activity_id=KernelActivity.INVOKE,
            severity=Severity.INFORMATIONAL if allowed else Severity.MEDIUM,
            disposition=Disposition.ALLOWED if allowed else Disposition.BLOCKED,
            syscall=subject.name,
            number=subject.held.number,
            pid=subject.thread.pid,
            exe=subject.thread.exe,
            message=bounded(text, 800),
            **_of(box),
        )


def _of(box: Sandbox) -> dict[str, Any]:
    return {
        "agent": box.agent,
        "instance": box.instance,
        "policy": box.policy,
        "policy_version": box.policy_version,
    }
