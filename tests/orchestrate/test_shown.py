"""Prefect hears of a run when the agent is contained and its credentials are closed, or after a while."""

from __future__ import annotations

import asyncio
import time
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any, cast

import pytest

from clawback.model import Phase
from clawback.orchestrate.flow import FlowResponder, Prefect
from clawback.orchestrate.shown import BUSY_SECONDS, PATIENCE, Pulse, Shown

pytestmark = pytest.mark.slow


def test_what_is_held_back_begins_when_it_may_and_once() -> None:
    async def run() -> list[str]:
        begun: list[str] = []
        shown = Shown(asyncio.get_running_loop())
        shown.hold(lambda: begun.append("let"), 60)
        await asyncio.sleep(0)
        assert begun == []
        shown.let()
        shown.let()
        return begun

    assert asyncio.run(run()) == ["let"]


def test_after_a_while_it_begins_by_itself() -> None:
    async def run() -> None:
        begun = asyncio.Event()
        shown = Shown(asyncio.get_running_loop())
        shown.hold(begun.set, 0.01)
        await asyncio.wait_for(begun.wait(), 10)
        shown.let()

    asyncio.run(run())


@pytest.mark.parametrize(
    ("phase", "begins"),
    [
        (Phase.IDENTIFY, False),
        (Phase.CONTAIN, False),
        (Phase.ERADICATE, False),
        (Phase.RECOVER, True),
        (Phase.POST_INCIDENT, True),
    ],
)
def test_it_begins_with_the_phase_after_eradication(phase: Phase, begins: bool) -> None:
    async def run() -> bool:
        begun: list[bool] = []
        loop = asyncio.get_running_loop()
        shown = Shown(loop)
        shown.hold(lambda: begun.append(True), 60)
        journal = SimpleNamespace(enter=lambda *_: None)
        response = cast("Any", SimpleNamespace(journal=journal, incident_id="INC-1"))
        responder = FlowResponder(response, loop, shown, held=lambda: True, turn=nullcontext)

        def enter() -> None:
            with responder.phase(phase):
                pass

        await asyncio.to_thread(enter)
        await asyncio.sleep(0)
        found = bool(begun)
        shown.let()
        return found

    assert asyncio.run(run()) is begins


def test_while_alerts_pour_in_it_begins_neither_by_phase_nor_by_itself() -> None:
    async def run() -> None:
        begun, looks = asyncio.Event(), iter((True, True, True, False))
        shown = Shown(asyncio.get_running_loop())
        shown.hold(begun.set, 0.01, lambda: next(looks))
        shown.may_begin()
        assert not begun.is_set()
        await asyncio.wait_for(begun.wait(), 10)
        assert next(looks, None) is None, "it began before the rush was over"

    asyncio.run(run())


def test_no_rush_keeps_a_run_from_prefect_for_ever_nor_from_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    async def run(rush_seconds: float) -> asyncio.Event:
        monkeypatch.setattr("clawback.orchestrate.shown.RUSH_SECONDS", rush_seconds)
        begun = asyncio.Event()
        shown = Shown(asyncio.get_running_loop())
        shown.hold(begun.set, 0.01, lambda: True)
        if rush_seconds:
            shown.let()
        await asyncio.wait_for(begun.wait(), 10)
        return begun

    assert asyncio.run(run(0.0)).is_set()
    assert asyncio.run(run(60.0)).is_set()


@pytest.mark.parametrize(
    ("last_begun", "patient"), [(None, PATIENCE), (-60.0, PATIENCE), (3.0, 3.0 + PATIENCE), (29.0, BUSY_SECONDS)]
)
def test_a_begin_is_waited_for_longer_as_long_as_others_begin(last_begun: float | None, patient: float) -> None:
    async def run() -> tuple[float, float]:
        pulse = Pulse()
        before = time.monotonic()
        shown = Shown(asyncio.get_running_loop(), pulse)
        after = time.monotonic()
        if last_begun is not None:
            pulse.at = after + last_begun
        return shown.patient_until - before, shown.patient_until - after

    since_before, since_after = asyncio.run(run())
    assert since_after <= patient <= since_before


def test_what_begins_tells_those_that_wait_and_what_does_not_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("clawback.orchestrate.shown.PATIENCE", 0.01)

    async def run() -> tuple[bool, bool, float]:
        pulse, loop = Pulse(), asyncio.get_running_loop()
        begins, waits = Shown(loop, pulse), Shown(loop, pulse)
        begins.start(begins.body())
        await asyncio.sleep(0)
        found = await asyncio.to_thread(begins.wait_begun), await asyncio.to_thread(waits.wait_begun)
        begins.end(lambda: None)
        assert begins.task is not None
        await begins.task
        return *found, pulse.at

    first, second, at = asyncio.run(run())
    assert (first, second) == (True, False)
    assert at > 0


@pytest.mark.parametrize(
    ("there", "told"),
    [
        ((), "a new run"),
        (("CRASHED",), "the crashed one"),
        (("CRASHED", "COMPLETED"), ""),
        (("RUNNING",), ""),
        (("CANCELLED",), ""),
        (("FAILED",), "a new run"),
    ],
)
def test_of_what_closed_unseen_prefect_is_told_what_it_does_not_say_itself(
    there: tuple[str, ...], told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []

    async def runs(incident: str, states: tuple[Any, ...]) -> list[tuple[str, str]]:
        return [(state, incident) for state in there if state in {one.value for one in states}]

    async def set_state(run: str, state: Any, *, force: bool) -> None:
        assert (run, state.type.value, force) == ("CRASHED", "COMPLETED", True)
        said.append("the crashed one")

    async def create(_flow: Any, *, name: str, tags: list[str], state: Any) -> None:
        assert (name, tags, state.type.value) == ("INC-1", ["clawback:x", "incident:INC-1", "drill"], "COMPLETED")
        said.append("a new run")

    prefect = Prefect("clawback:x", "http://127.0.0.1:1/api")
    client = SimpleNamespace(set_flow_run_state=set_state, create_flow_run=create)
    monkeypatch.setattr(prefect, "_client", SimpleNamespace(client=client))
    monkeypatch.setattr(prefect, "_runs", runs)
    incident = cast("Any", SimpleNamespace(id="INC-1", playbook="book", drill=True))
    assert asyncio.run(prefect.make_good(incident)) == len(said)
    assert said == ([told] if told else [])
