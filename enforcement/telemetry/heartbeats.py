"""Say of every sandbox, each few seconds, that it is alive and still as launched, or what of it is not.

One agent at a time, at times spread over the period, so that a hundred of them cost nobody a pause: looking at one
takes 0.3 ms of a processor (0.2 ms for its first process, 0.1 ms for each other), the pass over /proc 0.6 ms at most
once a second.
"""

from __future__ import annotations

import errno
import heapq
import itertools
import time
from collections.abc import Mapping
from dataclasses import dataclass

from clawback.enforcement.sandbox.record import Sandbox
from clawback.enforcement.telemetry.integrity import Integrity, owners, strays
from clawback.enforcement.telemetry.roster import Tracked
from clawback.enforcement.telemetry.sandbox import SandboxTelemetry
from clawback.model import Lifecycle, Severity

__all__ = ["Heartbeats"]

_AGAIN_SECONDS = 0.3
"""A stray process is believed when it is there at two looks so far apart."""
_OWNERS_SECONDS = 1.0
_GONE = (errno.ENOENT, errno.ESRCH, errno.ENODEV)
_GOLDEN = 0.618_033_988_749_895


@dataclass(slots=True)
class _Watched:
    box: Sandbox
    tracked: Tracked
    launched: Integrity | None
    suspected: frozenset[str] = frozenset()


class Heartbeats:
    """Not thread-safe. `due` says when `beat` wants to be called next, on the monotonic clock."""

    def __init__(self, telemetry: SandboxTelemetry, *, seconds: float) -> None:
        self._telemetry = telemetry
        self._seconds = seconds
        self._watched: dict[str, _Watched] = {}
        self._core_due = time.monotonic() + seconds
        self._queue: list[tuple[float, int, str]] = []
        self._count = itertools.count()
        self._owners: Mapping[int, tuple[int, ...]] = {}
        self._owners_until = 0.0

    @property
    def due(self) -> float:
        """When the next beat is."""
        return min(self._core_due, self._queue[0][0]) if self._queue else self._core_due

    def add(self, box: Sandbox, tracked: Tracked) -> None:
        """Watch an instance. What it is like now is what it was launched as, unless that was written down before."""
        try:
            launched = Integrity.of(box)
        except OSError:
            launched = None  # it has ended; its pidfd says so
        self._watched[box.instance] = _Watched(box, tracked, launched)
        number = next(self._count)
        # Multiples of the golden ratio, less their whole part, spread evenly however many there are.
        self._push(time.monotonic() + self._seconds * (number * _GOLDEN % 1.0), box.instance)

    def remove(self, instance: str) -> None:
        """Watch it no more."""
        self._watched.pop(instance, None)

    def beat(self) -> None:
        """The one that is due first: nothing where none is due."""
        now = time.monotonic()
        if now >= self._core_due:
            self._core_due = now + self._seconds
            self._telemetry.overflowed()
            self._core()
        elif self._queue and now >= self._queue[0][0]:
            _, _, instance = heapq.heappop(self._queue)
            watched = self._watched.get(instance)
            if watched is not None:
                again = self._seconds
                try:
                    again = self._look(watched, now)
                finally:  # whatever went wrong with this look, there is a next one
                    self._push(now + again, instance)

    def _push(self, at: float, instance: str) -> None:
        heapq.heappush(self._queue, (at, next(self._count), instance))

    def _look(self, watched: _Watched, now: float) -> float:
        """Report on one; returns the seconds until it is looked at again."""
        box = watched.box
        try:
            if watched.launched is None:
                watched.launched = Integrity.of(box)
            changes = watched.launched.changes(Integrity.read(box.pid))
            if now >= self._owners_until:
                self._owners, self._owners_until = owners(), now + _OWNERS_SECONDS
            seen = frozenset(strays(box, watched.launched, self._owners))
        except OSError as error:
            if error.errno in _GONE:
                return self._seconds  # it has just ended; its pidfd says so
            self._say(watched, Severity.LOW, "alive", f"not looked at: {error.strerror}")
            return self._seconds
        confirmed, unclear = seen & watched.suspected, seen - watched.suspected
        watched.suspected = seen
        wrong = (*changes, *sorted(confirmed))
        if unclear and not wrong:
            self._owners_until = 0.0  # the second look must not go by the first one's list
            return min(_AGAIN_SECONDS, self._seconds)
        if wrong:
            self._say(watched, Severity.HIGH, "tampered", f"not as at launch: {', '.join(wrong)}")
        else:
            self._say(watched, Severity.INFORMATIONAL, "alive", "")
        return self._seconds

    def _say(self, watched: _Watched, severity: Severity, status: str, message: str) -> None:
        writer, agent = self._telemetry.writer, watched.box.agent
        writer.emit(
            Lifecycle,
            activity_id=Lifecycle.OTHER,
            severity=severity,
            component="sandbox",
            status=status,
            message=message,
            lost=writer.take_lost(agent),
            violations=writer.violations.last_hour(agent),
            **watched.tracked.fields,
        )

    def _core(self) -> None:
        writer = self._telemetry.writer
        reasons = ", ".join(f"{count} {reason}" for reason, count in sorted(writer.losses.items()))
        writer.emit(
            Lifecycle,
            activity_id=Lifecycle.OTHER,
            component="core",
            status="alive",
            lost=writer.take_lost(""),
            message=f"lost since the start: {reasons}" if reasons else "",
        )
