"""An open incident is gone on with by itself: soon, more and more rarely, and never not at all."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from clawback.orchestrate.again import Again
from clawback.orchestrate.engine import End


class Timer:
    def __init__(self) -> None:
        self.cancelled = False

    def cancel(self) -> None:
        self.cancelled = True


class Loop:
    """Notes what is to be called, and when."""

    def __init__(self) -> None:
        self.pauses: list[float] = []
        self.timers: list[Timer] = []

    def call_later(self, pause: float, _call: Callable[[str], None], _incident: str) -> Timer:
        self.pauses.append(pause)
        self.timers.append(Timer())
        return self.timers[-1]


def end(**changes: Any) -> End:
    values: dict[str, Any] = {
        "incident": "INC-1",
        "status": "open",
        "orchestration": "degraded",
        "pending": ("a.b unverified",),
        "unreached": False,
        "unproved": False,
        "error": "",
        "elapsed_ms": 1.0,
        "first_line_ms": 1.0,
    }
    return End(**(values | changes))


@pytest.fixture
def loop() -> Loop:
    return Loop()


@pytest.fixture
def again(loop: Loop) -> Again:
    return Again(loop, lambda _: None)  # type: ignore[arg-type]  # all of a loop that it uses


@pytest.mark.parametrize(("why", "longest"), [("unreached", 30.0), ("unproved", 900.0)])
def test_it_is_never_given_up_and_never_a_busy_loop(again: Again, loop: Loop, why: str, longest: float) -> None:
    for _ in range(200):
        again.after(end(**{why: True}))
    assert len(loop.pauses) == 200
    assert loop.pauses[0] == 0.5
    assert loop.pauses == sorted(loop.pauses)
    assert loop.pauses[-1] == longest
    assert sum(not timer.cancelled for timer in loop.timers) == 1


@pytest.mark.parametrize("how", [{}, {"status": "closed", "unproved": True}], ids=["waits-for-a-person", "closed"])
def test_what_going_on_does_not_help_is_left_alone(again: Again, loop: Loop, how: dict[str, Any]) -> None:
    again.after(end(unreached=True))
    again.after(end(**how))
    assert len(loop.pauses) == 1
    assert loop.timers[0].cancelled


def test_getting_further_begins_anew(again: Again, loop: Loop) -> None:
    for _ in range(6):
        again.after(end(unreached=True, pending=("a", "b")))
    again.after(end(unreached=True, pending=("a",)))
    assert loop.pauses[-1] == 0.5
