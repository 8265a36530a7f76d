"""Prefect hears of a run when the agent is contained and its credentials are closed, or after a while."""

from __future__ import annotations

import asyncio
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any, cast

import pytest

from clawback.model import Phase
from clawback.orchestrate.flow import FlowResponder, Shown

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
