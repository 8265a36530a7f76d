"""What Prefect refuses holds up none of the others, and is given up after a while; what it does not hear is kept."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, cast
from uuid import UUID, uuid4

import httpx
import pytest
import structlog

from clawback.journal import Journal
from clawback.model import Incident
from clawback.orchestrate import engine as room
from clawback.orchestrate.engine import Engine
from clawback.orchestrate.unshown import Unshown


class Prefect:
    """Is told of incidents by a real engine, and answers as it is let."""

    def __init__(self) -> None:
        self.told: list[str] = []
        self.refuses: set[str] = set()
        self.status = 422
        self.away = False
        self.lost: list[tuple[UUID, str]] = []

    async def alive(self) -> list[tuple[UUID, str]]:
        return self.lost

    async def reconcile(self, _run: UUID, incident: Incident) -> int:
        return await self.make_good(incident)

    async def make_good(self, incident: Incident) -> int:
        self.told.append(incident.id)
        request = httpx.Request("POST", "http://127.0.0.1:1/api")
        if self.away:
            raise httpx.ConnectError("refused", request=request)
        if incident.id in self.refuses:
            answer = httpx.Response(self.status, request=request)
            raise httpx.HTTPStatusError("no", request=request, response=answer)
        return 1


Told = tuple[Engine, Prefect, list[str]]


@pytest.fixture
def told_by(journal: Journal, opened: Callable[[int], Incident]) -> Callable[[int], Told]:
    """An engine, the Prefect that it tells, and so many closed incidents that this has not heard of."""

    def told(closed: int) -> Told:
        engine, prefect, names = Engine(journal, lambda: cast("Any", None), {}), Prefect(), []
        engine.prefect = cast("Any", prefect)
        for number in range(closed):
            incident = opened(number)
            with journal.lock(incident.agent):
                journal.close(incident)
            names.append(incident.id)
            engine._unshown.note(incident.id, 0.0)
        return engine, prefect, names

    return told


def test_those_behind_one_that_is_refused_are_told(told_by: Callable[[int], Told]) -> None:
    engine, prefect, names = told_by(4)
    prefect.refuses = {names[0]}
    assert asyncio.run(engine.reconcile()) == 3
    assert prefect.told == names
    prefect.refuses.clear()
    assert asyncio.run(engine.reconcile()) == 1
    assert prefect.told[4:] == [names[0]]


def test_what_is_refused_again_and_again_is_given_up_and_said(told_by: Callable[[int], Told]) -> None:
    engine, prefect, names = told_by(1)
    prefect.refuses = set(names)
    with structlog.testing.capture_logs() as said:
        for _ in range(20):
            assert asyncio.run(engine.reconcile()) == 0
    assert 1 < len(prefect.told) < 20
    assert said[-1]["event"] == "prefect: not shown, and no longer tried"
    assert said[-1]["incident"] == names[0]


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_server_that_cannot_now_is_asked_for_as_long_as_it_takes(told_by: Callable[[int], Told], status: int) -> None:
    engine, prefect, names = told_by(2)
    prefect.refuses, prefect.status = {names[0]}, status
    for _ in range(20):
        asyncio.run(engine.reconcile())
    assert prefect.told.count(names[1]) == 1
    prefect.refuses.clear()
    assert asyncio.run(engine.reconcile()) == 1
    assert asyncio.run(engine.reconcile()) == 0


def test_nothing_is_lost_and_no_round_goes_on_where_prefect_is_away(told_by: Callable[[int], Told]) -> None:
    engine, prefect, names = told_by(3)
    prefect.away = True
    for _ in range(20):
        with pytest.raises(httpx.ConnectError):
            asyncio.run(engine.reconcile())
    assert len(prefect.told) == 20
    prefect.away = False
    assert asyncio.run(engine.reconcile()) == 3
    assert set(prefect.told[20:]) == set(names)


def test_a_lost_run_that_cannot_be_ended_holds_up_none(told_by: Callable[[int], Told]) -> None:
    engine, prefect, names = told_by(2)
    engine._unshown = Unshown()
    prefect.lost = [(uuid4(), name) for name in names]
    prefect.refuses = {names[0]}
    assert asyncio.run(engine.reconcile()) == 1
    assert prefect.told == names


def test_a_round_ends_in_time_and_the_next_goes_on(
    told_by: Callable[[int], Told], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, "_ROUND_SECONDS", -1.0)
    engine, prefect, names = told_by(3)
    assert asyncio.run(engine.reconcile()) == 0
    assert engine.behind
    monkeypatch.undo()
    assert asyncio.run(engine.reconcile()) == 3
    assert prefect.told == names
    assert not engine.behind


def test_what_may_yet_change_is_looked_at_again_and_the_newest_are_kept() -> None:
    unshown = Unshown()
    unshown.note("changes", 60.0)
    unshown.note("does not", 0.0)
    for _ in range(2):
        unshown.told(unshown.turn())
    assert [unshown.turn(), unshown.turn()] == ["changes", "changes"]
    assert not unshown.behind
    unshown.note("is new", 0.0)
    assert unshown.behind
    assert unshown.turn() == "is new"
    for number in range(1_000):
        unshown.note(f"{number}", 0.0)
    assert len(unshown) == 1_000
    assert unshown.turn() == "0"


def test_what_is_noted_while_prefect_is_told_is_looked_at_again() -> None:
    unshown = Unshown()
    unshown.note("ends again", 0.0)
    assert unshown.turn() == "ends again"
    unshown.note("ends again", 0.0)
    unshown.told("ends again")
    assert unshown.turn() == "ends again"
    unshown.told("ends again")
    assert unshown.turn() == ""
