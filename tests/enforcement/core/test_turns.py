"""Few at a time, and nobody for ever behind one that is slow."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from clawback.enforcement.core.turns import Turns


class Within:
    """What waits inside a turn, and how many are in."""

    def __init__(self, turns: Turns) -> None:
        self._turns = turns
        self.inside = threading.Semaphore(0)
        self.may_leave = threading.Event()

    def __call__(self) -> None:
        with self._turns.turn():
            self.inside.release()
            assert self.may_leave.wait(10)


def test_no_more_than_so_many_at_once() -> None:
    one = Within(Turns(at_once=2, patience=60))
    with ThreadPoolExecutor(4) as threads:
        made = [threads.submit(one) for _ in range(4)]
        assert one.inside.acquire(timeout=10)
        assert one.inside.acquire(timeout=10)
        assert not one.inside.acquire(timeout=0.1)
        one.may_leave.set()
        assert [x.result() for x in made] == [None] * 4


def test_one_that_is_slow_holds_nobody_up_for_longer_than_the_patience() -> None:
    one = Within(Turns(at_once=1, patience=0.01))
    with ThreadPoolExecutor(3) as threads:
        made = [threads.submit(one) for _ in range(3)]
        assert all(one.inside.acquire(timeout=10) for _ in made)
        one.may_leave.set()


def test_a_turn_that_was_not_had_is_not_given_back() -> None:
    turns = Turns(at_once=1, patience=0.01)
    with turns.turn():
        with turns.turn():
            pass
        with ThreadPoolExecutor(1) as threads, turns.turn():
            threads.submit(lambda: None).result()
    with turns.turn():
        pass


def test_it_is_busy_in_a_turn_and_a_moment_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    turns = Turns()
    assert not turns.busy
    with turns.turn():
        assert turns.busy
    assert turns.busy, "another order may come at once"
    monkeypatch.setattr(turns, "_quiet_at", 0.0)
    assert not turns.busy
