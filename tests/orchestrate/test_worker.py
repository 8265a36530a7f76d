"""An incident that is told of is begun at once; what cannot be begun now is due, and found by the next look."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, cast

import pytest

from clawback.errors import Unreachable
from clawback.journal import Journal
from clawback.model import Incident
from clawback.orchestrate import worker as room
from clawback.orchestrate.pace import RUSH, Pace
from clawback.orchestrate.worker import LOOK_SECONDS, Worker

Opening = Callable[[int], Incident]


class Engine:
    """Takes every turn, or those that it is let take, and counts them; none ends before `over` is set."""

    def __init__(self, journal: Journal) -> None:
        self.journal = journal
        self.pace = Pace()
        self.turns: list[str] = []
        self.over = asyncio.Event()
        self.takes: Callable[[str], bool] = lambda _incident: True

    async def turn(self, incident: str, _pause: Any) -> Any:
        self.turns.append(incident)
        if not self.takes(incident):
            return None
        await self.over.wait()
        return type("End", (), {"error": ""})


def working(journal: Journal) -> tuple[Engine, Worker]:
    engine = Engine(journal)
    return engine, Worker(cast("Any", engine), lambda _end: None)


def rested(journal: Journal, incident: str) -> str:
    turn = journal.turn(incident)
    assert turn is not None
    journal.rest(turn, seconds=None, tries=0, pending=1)
    return incident


def test_what_is_told_of_is_begun_without_a_look(journal: Journal, opened: Opening) -> None:
    async def run() -> None:
        engine, worker = working(journal)
        incident = opened(0).id
        await worker.wake(incident)
        await asyncio.sleep(0)
        assert engine.turns == [incident]
        engine.over.set()
        await worker.finish()

    asyncio.run(run())


def test_what_rests_is_due_once_it_is_told_of(journal: Journal, opened: Opening) -> None:
    async def run() -> None:
        engine, worker = working(journal)
        engine.takes = lambda _incident: False
        incident = rested(journal, opened(0).id)
        assert journal.due() == ()
        await worker.wake(incident)
        await worker.finish()
        assert journal.due() == (incident,)

    asyncio.run(run())


def test_told_of_while_it_is_in_hand_it_is_worked_on_once_more(journal: Journal, opened: Opening) -> None:
    async def run() -> None:
        engine, worker = working(journal)
        incident = opened(0).id
        with journal.lock("agent-0"):  # as its turn holds it
            await worker.wake(incident)
            turn = journal.turn(incident)
            assert turn is not None
            worker._heard -= LOOK_SECONDS  # long ago
            await worker.wake(incident)
            assert engine.turns == [incident]
            journal.rest(turn, seconds=None, tries=0, pending=1)
        assert journal.due() == (incident,)
        engine.over.set()
        await worker.finish()

    asyncio.run(run())


def test_where_many_are_told_of_at_a_time_it_is_looked_first(
    journal: Journal, opened: Opening, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, "LOOK_SECONDS", 60.0)  # however slow the machine, they follow close upon each other

    async def run() -> None:
        engine, worker = working(journal)
        incidents = [opened(number).id for number in range(RUSH + 3)]
        for incident in incidents:
            await worker.wake(incident)
        await asyncio.sleep(0)
        assert engine.turns == incidents[:1]
        await worker._look()
        assert engine.pace.rush
        assert engine.turns == incidents[:1], "a rush begins no other"
        engine.over.set()
        await worker.finish()

    asyncio.run(run())


def test_a_journal_that_does_not_answer_ends_no_worker(
    journal: Journal, opened: Opening, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(_incident: str) -> bool:
        raise Unreachable("the journal does not answer")

    async def run() -> None:
        engine, worker = working(journal)
        engine.takes = lambda _incident: False
        monkeypatch.setattr(journal, "waits", away)
        await worker.wake(opened(0).id)
        await worker.finish()
        assert not worker._names

    asyncio.run(run())


async def looked(worker: Worker) -> None:
    """The worker went through two whole looks."""
    looks, look = 0, worker._look

    async def counted() -> None:
        nonlocal looks
        await look()
        looks += 1

    worker._look = counted  # type: ignore[method-assign]
    async with asyncio.timeout(60):
        while looks < 3:  # in the first it may be already
            worker._awake.set()
            await asyncio.sleep(0)
    worker._look = look  # type: ignore[method-assign]


def test_memory_is_tidied_between_incidents_and_never_during_one(
    journal: Journal, opened: Opening, monkeypatch: pytest.MonkeyPatch
) -> None:
    tidied: list[tuple[str, int]] = []

    async def run() -> None:
        engine, worker = working(journal)
        monkeypatch.setattr(journal, "due", lambda: ())  # nothing but what it is told of
        monkeypatch.setattr(room, "keep_loaded", lambda: tidied.append(("loaded", len(worker._running))))
        monkeypatch.setattr(room.gc, "collect", lambda: tidied.append(("collected", len(worker._running))))
        task = asyncio.create_task(worker.run())
        for number in range(2):
            engine.over.clear()
            worker._heard -= LOOK_SECONDS  # each comes alone
            await worker.wake(opened(number).id)
            await looked(worker)
            assert len(tidied) == number, "it is being contained"
            engine.over.set()
            await worker.finish()
            await looked(worker)
        await looked(worker)
        task.cancel()

    asyncio.run(run())
    assert tidied == [("loaded", 0), ("collected", 0)]
