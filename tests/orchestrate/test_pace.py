"""Playbooks let alerts go first, and are not kept waiting for ever."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from clawback.orchestrate.pace import CALM, LULL, RUSH, Pace


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(4) as pool:
        yield pool


def calm(pace: Pace) -> None:
    for _ in range(LULL):
        pace.look(CALM)


class Steps:
    """Steps that are made until they may end, and how many are being made."""

    def __init__(self, pace: Pace) -> None:
        self._pace = pace
        self.begun = threading.Semaphore(0)
        self.may_end = threading.Event()

    def make(self) -> None:
        with self._pace.step():
            self.begun.release()
            assert self.may_end.wait(10)

    def one_more(self, seconds: float = 10.0) -> bool:
        return self.begun.acquire(timeout=seconds)


def test_side_by_side_as_long_as_few_alerts_come(threads: ThreadPoolExecutor) -> None:
    pace = Pace()
    pace.look(RUSH - 1)
    steps = Steps(pace)
    made = [threads.submit(steps.make) for _ in range(3)]
    assert all(steps.one_more() for _ in made)
    steps.may_end.set()
    assert [one.result() for one in made] == [None] * 3


def test_none_begins_in_a_rush_and_all_go_on_after_it(threads: ThreadPoolExecutor) -> None:
    pace = Pace(patience=60)
    pace.look(RUSH)
    steps = Steps(pace)
    made = [threads.submit(steps.make) for _ in range(3)]
    assert not steps.one_more(0.1)
    pace.look(CALM + 1)
    assert pace.rush, "it is not over yet"
    for _ in range(LULL - 1):
        pace.look(CALM)
    pace.look(CALM + 1)
    assert pace.rush, "that was a lull"
    calm(pace)
    assert all(steps.one_more() for _ in made)
    steps.may_end.set()
    assert [one.result() for one in made] == [None] * 3


def test_a_rush_keeps_no_step_for_longer_than_the_patience(threads: ThreadPoolExecutor) -> None:
    pace = Pace(patience=0.05)
    pace.look(RUSH)
    steps = Steps(pace)
    made = [threads.submit(steps.make) for _ in range(3)]
    assert all(steps.one_more() for _ in made)
    steps.may_end.set()
    for one in made:
        one.result()


def test_it_is_busy_while_a_step_is_made_or_alerts_pour_in(threads: ThreadPoolExecutor) -> None:
    pace = Pace(patience=60)
    assert not pace.busy
    steps = Steps(pace)
    made = threads.submit(steps.make)
    assert steps.one_more()
    assert pace.busy
    steps.may_end.set()
    made.result()
    assert not pace.busy
    pace.look(RUSH)
    assert pace.busy
    calm(pace)
    assert not pace.busy
