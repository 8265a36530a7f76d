"""The whole ladder up and down on one agent, with and without a spawner."""

from __future__ import annotations

import pytest

from clawback.enforcement.quarantine import ladder
from clawback.model import Enforcement, Level

pytestmark = pytest.mark.kernel

WORK = """
link = socket.create_connection(("127.0.0.1", 3128))
while True: board[0] += 1
"""


@pytest.mark.parametrize("warm", [True, False], ids=["spawner", "alone"])
def test_up_and_down(make, warm):
    made = make(WORK, secrets={"token": "something"})
    made.moves()
    more = {"run": make.run} if warm else {}
    for level in Level:
        assert ladder.probe(made.box, level).enforcement is not Enforcement.FULL
    for level in (Level.FREEZE, Level.ISOLATE, Level.RESTRICT):
        result = ladder.apply(made.box, level, **more)
        assert result.level is level
        # Restricted, the board that the agent has mapped is named: it can still be written to.
        expected = Enforcement.PARTIAL if level is Level.RESTRICT else Enforcement.FULL
        assert result.enforcement is expected, result
        assert all("board'" in line for line in result.missing), result
        assert result.elapsed_ms > 0
        assert result.at_ns > 0
        assert ladder.probe(made.box, level).enforcement is expected
    for level in (Level.RESTRICT, Level.ISOLATE, Level.FREEZE):
        assert ladder.release(made.box, level, **more).enforcement is Enforcement.NONE
    made.moves()
    for level in (Level.FREEZE, Level.SEAL, Level.STOP):
        result = ladder.apply(made.box, level, **more)
        assert result.enforcement is Enforcement.FULL, result
    for level in (Level.STOP, Level.SEAL):
        assert ladder.release(made.box, level, **more).enforcement is Enforcement.FULL


NUMBERS = {
    Level.FREEZE: {"processes", "frozen"},
    Level.ISOLATE: {"addresses", "connections"},
    Level.SEAL: {"processes", "threads", "sealed", "walled"},
    Level.STOP: {"processes"},
}


def test_results_carry_numbers(make):
    made = make("if os.fork() == 0: time.sleep(1000)\n" + WORK)
    make.wait_until(lambda: made.board[0] > 0, "it works")
    for level, names in NUMBERS.items():
        ladder.apply(made.box, level, run=make.run)
        seen = ladder.probe(made.box, level, run=make.run).counts
        assert names <= set(seen), (level, seen)
        expected = {"frozen": 3, "sealed": 3, "processes": 0 if level is Level.STOP else 3, "connections": 0}
        for name, number in expected.items():
            assert seen.get(name, number) == number, (level, seen)
