"""Takes incidents from the journal, as many as there is room for, until told to stop: one of any number of workers.

An incident belongs to whoever holds its agent's lock. The lock of a worker that died is seen to be nobody's, at once on
its own host and within `LEASE_SECONDS` from another, and the incident is still due: the next one goes on with it.
Prefect's queues take no part in this. What is left open is due again: soon where a part did not answer or a proof is
missing, then ever more rarely, but for as long as it is open; where a person is waited for, as soon as that person has
spoken.
"""

from __future__ import annotations

import asyncio
import gc
import random
import time
from collections.abc import Callable

import structlog

from clawback.errors import ClawbackError, NotFound
from clawback.journal import Journal
from clawback.orchestrate.end import End
from clawback.orchestrate.engine import WORKERS, Engine
from clawback.orchestrate.pace import WINDOW
from clawback.pauses import keep_loaded

__all__ = ["Worker"]

_log = structlog.get_logger()

LOOK_SECONDS = 0.25  # two queries, under a millisecond
# Seconds before an incident is gone on with by itself: then twice as long each time, up to the longest, which is longer
# where all parts answered and a proof is missing, for that is a whole attempt, and leaves its lines in the journal.
_FIRST_PAUSE = 0.5
_LONGEST_UNREACHED, _LONGEST_UNPROVED = 30.0, 900.0
_AFTER_TROUBLE = 1.0


class Worker:
    """`said` hears how each run ended."""

    def __init__(self, engine: Engine, said: Callable[[End], None]) -> None:
        self._engine = engine
        self._journal: Journal = engine.journal
        self._said = said
        self._awake = asyncio.Event()
        self._running: set[asyncio.Task[None]] = set()
        self._names: set[str] = set()
        self._decided: set[str] = set()
        self._asked: set[str] = set()
        self._heard = -LOOK_SECONDS
        self._worked = False
        self._is_loaded = False

    async def run(self) -> None:
        """Work until cancelled."""
        while True:
            if self._engine.pace.rush:
                await asyncio.sleep(LOOK_SECONDS)  # each alert wakes us, and looking costs what the alert needs
            self._awake.clear()
            try:
                await self._look()
            except ClawbackError as error:
                _log.warning("the journal could not be looked at", reason=error.message)
                await asyncio.sleep(_AFTER_TROUBLE)
            self._tidy()
            try:
                async with asyncio.timeout(LOOK_SECONDS):
                    await self._awake.wait()
            except TimeoutError:
                pass

    def _tidy(self) -> None:
        """Between incidents, for a collection stops all that runs. The first loads what those after it need as well."""
        if self._running or not self._worked:
            return
        self._worked = False
        if self._is_loaded:
            gc.collect()
        else:
            keep_loaded()
            self._is_loaded = True

    async def wake(self, incident: str) -> None:
        """It is due, and begun at once where it comes alone: to look what is due takes as long as to contain. One that
        follows close upon another may be of a rush, so it is looked first; and in a rush each alert asks, and is heard
        when that is over.
        """
        now = time.monotonic()
        alone, self._heard = now - self._heard >= LOOK_SECONDS, now
        if self._engine.pace.rush:
            self._asked.add(incident)
        elif not alone or incident in self._names or len(self._running) >= WORKERS:
            await self._ask(incident)
        else:
            self._begin(incident, asked=True)

    async def _ask(self, incident: str) -> None:
        if not await asyncio.to_thread(self._journal.waits, incident):
            await asyncio.to_thread(self._journal.enqueue, incident)
        self._awake.set()

    async def finish(self) -> None:
        """Wait for what runs."""
        while self._running:
            await asyncio.wait(self._running)

    async def _look(self) -> None:
        for approval, incident in (decided := await asyncio.to_thread(self._journal.decided)):
            if approval not in self._decided:
                await asyncio.to_thread(self._journal.enqueue, incident)
        self._decided = {approval for approval, _ in decided}  # what is left of it by then waits for something else
        self._engine.pace.look(await asyncio.to_thread(self._journal.opened_within, WINDOW))
        while self._asked and not self._engine.pace.rush:
            asked = next(iter(self._asked))
            try:
                await self.wake(asked)
            except NotFound:
                _log.warning("no such incident", incident=asked)
            self._asked.discard(asked)
        room = (1 if self._engine.pace.rush else WORKERS) - len(self._running)
        if room <= 0:
            return
        due = [name for name in await asyncio.to_thread(self._journal.due) if name not in self._names][:room]
        random.shuffle(due)  # workers that look at the same time need not all reach for the same one first
        for name in due:
            self._begin(name)

    def _begin(self, incident: str, *, asked: bool = False) -> None:
        self._names.add(incident)
        task = asyncio.create_task(self._work(incident, asked=asked))
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    async def _work(self, incident: str, *, asked: bool) -> None:
        try:
            end = await self._engine.turn(incident, _pause)
            if end is None and asked:  # it rests, or somebody else works on the agent
                await self._ask(incident)
            if end is not None:
                self._said(end)
                if end.error:
                    await asyncio.sleep(_AFTER_TROUBLE)  # a journal that fails must not be asked without a pause
        except ClawbackError as error:
            _log.warning("not told to work", incident=incident, reason=error.message)  # the next look finds it
        finally:
            self._names.discard(incident)
            self._worked = True
            self._awake.set()


def _pause(tries: int, unreached: bool) -> float:  # noqa: FBT001 - the engine's callback
    longest = _LONGEST_UNREACHED if unreached else _LONGEST_UNPROVED
    return min(_FIRST_PAUSE * float(2 ** min(tries, 16)), longest)
