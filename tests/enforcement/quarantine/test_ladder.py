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
        assert result.enforcement is Enforcement.FULL, result
        assert result.elapsed_ms > 0
        assert result.at_ns > 0
        assert ladder.probe(made.box, level).enforcement is Enforcement.FULL
    for level in (Level.RESTRICT, Level.ISOLATE, Level.FREEZE):
        assert ladder.release(made.box, level, **more).enforcement is Enforcement.NONE
    made.moves()
    for level in (Level.FREEZE, Level.SEAL, Level.STOP):
        result = ladder.apply(made.box, level, **more)
        assert result.enforcement is Enforcement.FULL, result
    for level in (Level.STOP, Level.SEAL):
        assert ladder.release(made.box, level, **more).enforcement is Enforcement.FULL
