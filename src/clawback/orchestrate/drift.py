"""Looks again, on a timer, whether what was verified still holds; an incident in which it does not is gone on with.

One look at a time, in a thread. An agent that a response is working on is left alone: what is being changed looks like
drift. While one works on any agent, the next look waits, by `PATIENCE` in a turn at most. `_MOST` incidents at each
turn, in a circle, so that a look at a part stays cheap for that part however many incidents there are.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

import structlog

from clawback.config import DriftSettings
from clawback.errors import ClawbackError
from clawback.journal import Journal
from clawback.response import Response, recheck

__all__ = ["PATIENCE", "Drift"]

_log = structlog.get_logger()
PATIENCE = 30.0  # seconds
_PAUSE = 0.05
_MOST = 200
_HOUR_NS = 3600 * 10**9


class Drift:
    """`response_to` makes the response of an incident; `start` goes on with one; `busy` says that a response works."""

    def __init__(
        self,
        journal: Journal,
        settings: DriftSettings,
        response_to: Callable[[str], Response],
        start: Callable[[str], Awaitable[None]],
        *,
        busy: Callable[[], bool] = lambda: False,
    ) -> None:
        self._journal = journal
        self._settings = settings
        self._response_to = response_to
        self._start = start
        self._busy = busy
        self._last = ""

    async def keep(self) -> None:
        """Look, again and again, until it is cancelled."""
        while True:
            await asyncio.sleep(self._settings.interval_seconds)
            try:
                found = await self.look()
            except Exception as error:
                # A part of the world that is not configured well must not end the looking for good.
                _log.warning("what was verified could not be looked at", error=type(error).__name__)
                continue
            for incident in found:
                try:
                    await self._start(incident)
                except ClawbackError as error:  # it is open, and found by the next look for work
                    _log.warning("not told to go on", incident=incident, reason=error.message)

    async def look(self) -> tuple[str, ...]:
        """One turn: the incidents in which something does not hold any more, each with its receipt and timeline."""
        since = time.time_ns() - round(self._settings.closed_hours * _HOUR_NS)
        standing = await asyncio.to_thread(self._journal.standing, since)
        after = [name for name in standing if name > self._last]
        turn = (*after, *(name for name in standing if name <= self._last))[:_MOST]
        drifted = []
        patient = time.monotonic() + PATIENCE
        for name in turn:
            while self._busy() and time.monotonic() < patient:  # noqa: ASYNC110 - threads make steps, and set no event
                await asyncio.sleep(_PAUSE)
            self._last = name
            try:
                if await asyncio.to_thread(self._drifted, name):
                    drifted.append(name)
            except ClawbackError as error:
                _log.warning("an incident could not be looked at again", incident=name, reason=error.message)
        return tuple(drifted)

    def _drifted(self, name: str) -> bool:
        incident = self._journal.incident(name)
        if not any(receipt.verified_ns for receipt in incident.receipts):
            return False
        if self._journal.lock_owner(incident.agent) or self._journal.waits(name):
            return False  # somebody works on the agent, or is about to, and must not find it locked
        with self._journal.lock(incident.agent):
            found = recheck(self._response_to(name))
        for receipt in found:
            _log.warning("what was verified does not hold", incident=name, action=receipt.action, proof=receipt.proof)
        return bool(found)
