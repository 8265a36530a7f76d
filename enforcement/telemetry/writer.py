"""Write events as OCSF JSON lines, numbered and whole, so that a reader can tell what is missing."""

from __future__ import annotations

import contextlib
import os
import secrets
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import structlog

from clawback.enforcement.telemetry.rate import RateLimit
from clawback.enforcement.telemetry.violations import Violations
from clawback.model import Event, Lifecycle, Source
from clawback.model.ocsf import LINE_LIMIT, encode

__all__ = ["TelemetryWriter"]

E = TypeVar("E", bound=Event)

_log = structlog.get_logger()


class TelemetryWriter:
    """Appends to `STATE/telemetry/SOURCE.jsonl`.

    Each line is one `write()` to an O_APPEND file, which the kernel makes whole and in order: several processes may
    share a file. It may be renamed or removed at any time: the next line goes into a new one of the same name. Each
    (agent, class) has a rate; what exceeds it is counted in `lost` and not written, except `Lifecycle` events, which
    are never dropped. Thread-safe. A full disk raises nothing here: an event that could not be written is lost, and
    counted.
    """

    def __init__(
        self,
        folder: Path,
        source: Source,
        *,
        rate: float = 200.0,
        burst: float = 1000.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.path = folder / f"{source.value}.jsonl"
        self.source = source
        self.writer = secrets.token_hex(4)
        self.violations = Violations(clock=clock)
        self._limit = RateLimit(rate, burst, clock=clock)
        self._lock = threading.Lock()
        self._sequence = 0
        self._lost: Counter[str] = Counter()
        self._reasons: Counter[str] = Counter()
        self._fd = -1
        self._torn = False
        self._complained = 0.0
        folder.mkdir(parents=True, exist_ok=True)
        self._open()

    def emit(
        self, kind: type[E], /, *, agent: str = "", time_ns: int = 0, bucket: str | None = "", **fields: Any
    ) -> E | None:
        """Write one event of this kind, now or at `time_ns`; returns it, or None where it was dropped.

        `writer`, `sequence` and `source` are filled in; everything else is the kind's own fields. `bucket`
        names a rate of its own beside that of the agent and class; None where the source keeps each agent to a rate.
        """
        with self._lock:
            limited = bucket is not None and kind is not Lifecycle
            if limited and not self._limit.allow((agent, kind.class_uid, bucket)):
                self._drop(agent, "rate")
                if _is_blocked(fields):
                    self.violations.add(agent)
                return None
            event = kind(
                time_ns=time_ns or time.time_ns(),
                writer=self.writer,
                sequence=self._sequence + 1,
                source=self.source,
                agent=agent,
                **fields,
            )
            if event.blocked:
                self.violations.add(agent)
            # The number is used up even where the write fails: the gap tells a reader that something is missing.
            self._sequence += 1
            line = encode(event)
            if len(line) > LINE_LIMIT or not self._append(line):
                self._drop(agent, "file")
                return None
            return event

    def lose(self, agent: str, count: int, reason: str) -> None:
        """Count events that were lost before they reached this writer (a kernel buffer that overflowed).

        `reason` is one of a few fixed words.
        """
        with self._lock:
            self._lost[agent] += count
            self._reasons[reason] += count

    def take_lost(self, agent: str) -> int:
        """How many of the agent's events were lost since this was last asked."""
        with self._lock:
            return self._lost.pop(agent, 0)

    @property
    def lost_total(self) -> int:
        """All losses of this writer's life."""
        return sum(self.losses.values())

    @property
    def losses(self) -> dict[str, int]:
        """The same, by reason."""
        return self._reasons.copy()

    @property
    def written(self) -> int:
        """The last sequence number given."""
        return self._sequence

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            if self._fd >= 0:
                os.close(self._fd)
                self._fd = -1

    def _drop(self, agent: str, reason: str) -> None:
        self._lost[agent] += 1
        self._reasons[reason] += 1

    def _open(self) -> None:
        # O_NOFOLLOW: the gateway's user may share the folder, and must not be able to aim root's writes elsewhere.
        self._fd = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)

    def _follow_rotation(self) -> None:
        try:
            there, here = self.path.stat(), os.fstat(self._fd)
            if (there.st_dev, there.st_ino) == (here.st_dev, here.st_ino):
                return
        except FileNotFoundError:
            pass  # renamed or removed: a new one is made below
        os.close(self._fd)
        self._fd = -1
        self._open()

    def _append(self, line: bytes) -> bool:
        try:
            if self._fd < 0:
                self._open()
            self._follow_rotation()
            if self._torn:
                line = b"\n" + line
            written = os.write(self._fd, line)
        except OSError as error:
            self._complain(error)
            return False
        # A short write leaves half a line; the next one starts with a newline so that only this line is spoilt.
        self._torn = written < len(line)
        return not self._torn

    def _complain(self, error: OSError) -> None:
        now = time.monotonic()
        if now - self._complained > 10.0:
            self._complained = now
            with contextlib.suppress(OSError):  # the log may be on the same full disk; the loss is counted anyway
                _log.error("telemetry not written", path=str(self.path), error=error.strerror, lost=self.lost_total)


def _is_blocked(fields: dict[str, Any]) -> bool:
    disposition = fields.get("disposition")
    return disposition is not None and int(disposition) == 2
