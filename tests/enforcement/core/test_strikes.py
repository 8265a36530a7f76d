"""Frozen ahead of an order: many by one call, nothing claimed, and held by the core where the order does not come."""

from __future__ import annotations

import os
import select

import pytest

from clawback.errors import InvalidInput
from clawback.model import AgentState, Enforcement, Level, Lifecycle, Severity

pytestmark = pytest.mark.kernel

COUNT = "import time\nwhile True:\n    print('x', end='', flush=True)\n    time.sleep(0.005)\n"


def quiet(out: int, seconds: float) -> bool:
    """Whether the agent writes nothing for so long, once what it wrote before is read away."""
    while select.select([out], [], [], 0)[0]:
        os.read(out, 65_536)
    return not select.select([out], [], [], seconds)[0]


def moves(out: int) -> bool:
    return not quiet(out, 10)


def stands(core, out: int) -> bool:
    """The kernel was told, and takes its moment."""
    core.until(lambda: quiet(out, 0.1), why="it goes on")
    return quiet(out, 0.3)


@pytest.fixture
def agents(core):
    return [core.launch(COUNT) for _ in range(3)]


def test_all_that_are_meant_stand_still_and_nobody_holds_them(core, agents):
    (one, first), (two, second), (left, third) = agents
    meant = {one.agent: one.instance, two.agent: two.instance, "nobody": "nobody-1"}
    assert {info.agent for info in core.client.strike(meant)} == {one.agent, two.agent}
    assert stands(core, first)
    assert stands(core, second)
    assert moves(third)
    assert [core.client.agent(info.agent).hold for info in (one, two, left)] == [None] * 3
    # The order comes, and undoing it lets the agent go on as any other.
    made = core.client.quarantine(one.agent, [Level.FREEZE], instance=one.instance, reason="r", by="watch")
    assert made.seen[0].enforcement is Enforcement.FULL
    core.client.release(one.agent, reason="r", by="test")
    assert moves(first)
    assert stands(core, second)


def test_another_instance_one_that_ended_and_one_in_a_drill_are_left_alone(core):
    ended, _ = core.launch("pass")
    core.until(lambda: core.client.agent(ended.agent).state is AgentState.EXITED)
    rehearsing, out = core.launch(COUNT, tags=("drill",))
    real, more = core.launch(COUNT)
    meant = {ended.agent: ended.instance, rehearsing.agent: rehearsing.instance, real.agent: "another"}
    assert core.client.strike(meant) == ()
    assert moves(out)
    assert moves(more)
    assert [info.agent for info in core.client.strike(meant, drills=True)] == [rehearsing.agent]
    assert stands(core, out)
    assert moves(more)


def test_where_no_order_comes_the_core_holds_it(make_core):
    core = make_core(more="order_seconds=0.2")
    core.start()
    (forgotten, out), (ordered, _) = core.launch(COUNT), core.launch(COUNT)
    core.client.strike({forgotten.agent: forgotten.instance, ordered.agent: ordered.instance})
    core.client.quarantine(ordered.agent, [Level.FREEZE], instance=ordered.instance, reason="r", by="watch")
    hold = core.until(lambda: core.client.agent(forgotten.agent).hold)
    assert (hold.by, hold.reason) == ("core", "found frozen without a hold")
    event = core.wait_for(
        lambda one: isinstance(one, Lifecycle) and "did not come" in one.message, agent=forgotten.agent
    )
    assert event.severity is Severity.HIGH
    assert core.client.agent(ordered.agent).hold.by == "watch"
    assert stands(core, out)
    core.client.release(forgotten.agent, reason="r", by="test")
    assert moves(out)


def test_it_is_bounded(core):
    with pytest.raises(InvalidInput, match="agents"):
        core.client.strike({f"a{number}": "i" for number in range(1025)})
