"""Many agents contained by one order: all held by one file, each seen to hold, and none that was not meant."""

from __future__ import annotations

import os
import select
import signal

import pytest

from clawback.errors import InvalidInput, Refused
from clawback.model import AgentState, Enforcement, Level, Quarantining

pytestmark = pytest.mark.kernel

BOTH = (Level.FREEZE, Level.ISOLATE)
COUNT = "import time\nwhile True:\n    print('x', end='', flush=True)\n    time.sleep(0.005)\n"


def meant(*agents, levels=BOTH):
    return [
        Quarantining(agent=info.agent, instance=info.instance, levels=levels, reason="r", incident=f"INC-{info.agent}")
        for info in agents
    ]


@pytest.fixture
def agents(core, make_spec):
    return [core.client.launch(make_spec("import time; time.sleep(600)")) for _ in range(4)]


def test_all_are_frozen_isolated_seen_and_held_and_nobody_else(core, agents):
    *several, left = agents
    made = core.client.quarantine_many(meant(*several), by="watch")
    assert {one.agent.agent for one in made} == {info.agent for info in several}
    for one in made:
        assert [result.level for result in one.applied] == list(BOTH)
        assert [result.enforcement for result in one.seen] == [Enforcement.FULL] * 2
        assert (one.agent.hold.by, one.agent.hold.incident) == ("watch", f"INC-{one.agent.agent}")
    for info in several:  # and once more, by those who made no order
        assert [core.client.probe(info.agent, level).enforcement for level in BOTH] == [Enforcement.FULL] * 2
    assert core.client.agent(left.agent).hold is None
    assert core.client.probe(left.agent, Level.FREEZE).enforcement is Enforcement.NONE


def test_released_one_by_one_each_goes_on_and_the_others_stay(core):
    (one, out), (two, other) = core.launch(COUNT), core.launch(COUNT)
    core.client.quarantine_many(meant(one, two), by="watch")
    released = core.client.release(one.agent, reason="r", by="test", incident=f"INC-{one.agent}")
    assert {result.enforcement for result in released} == {Enforcement.NONE}
    for pipe in (out, other):  # what was said before
        while select.select([pipe], [], [], 0)[0] and len(os.read(pipe, 65_536)) == 65_536:
            pass
    assert select.select([out], [], [], 10)[0]
    assert not select.select([other], [], [], 0.3)[0]
    assert core.client.agent(two.agent).hold.levels == BOTH
    assert core.client.probe(two.agent, Level.FREEZE).enforcement is Enforcement.FULL


def test_a_core_that_was_killed_finds_them_held(core, agents):
    core.client.quarantine_many(meant(*agents), by="watch")
    core.client.release(agents[0].agent, reason="r", by="test", incident=f"INC-{agents[0].agent}")
    core.end(signal.SIGKILL)
    core.start()
    assert [bool(core.client.agent(info.agent).hold) for info in agents] == [False, True, True, True]
    for info in agents[1:]:
        assert [core.client.probe(info.agent, level).enforcement for level in BOTH] == [Enforcement.FULL] * 2


def test_with_their_file_damaged_every_agent_is_held(core, agents):
    core.client.quarantine_many(meant(*agents[:2], levels=(Level.FREEZE,)), by="watch")
    core.end(signal.SIGKILL)
    (path,) = (core.state / "holds" / "together").glob("*.json")
    path.write_text(path.read_text()[:-9])
    core.start()
    for info in agents:
        assert core.client.agent(info.agent).hold.reason == "the hold's file is unreadable"
        assert [core.client.probe(info.agent, level).enforcement for level in BOTH] == [Enforcement.FULL] * 2


def test_who_is_not_there_another_or_ended_is_left_out_and_asked_singly_told_why(core, agents):
    ended, _ = core.launch("pass")
    core.until(lambda: core.client.agent(ended.agent).state is AgentState.EXITED)
    other = Quarantining(agent=agents[0].agent, instance="earlier", levels=BOTH, reason="r")
    nobody = Quarantining(agent="nobody", instance="nobody-1", levels=BOTH, reason="r")
    made = core.client.quarantine_many([other, nobody, *meant(ended, agents[1])], by="watch")
    assert [one.agent.agent for one in made] == [agents[1].agent]
    assert core.client.agent(agents[0].agent).hold is None
    assert core.client.agent(ended.agent).hold is None
    with pytest.raises(Refused, match="runs as"):
        core.client.quarantine(agents[0].agent, BOTH, instance="earlier", reason="r", by="watch")


@pytest.mark.parametrize("levels", [(), (Level.SEAL,)])
def test_other_levels_are_refused_and_nobody_is_touched(core, agents, levels):
    with pytest.raises(InvalidInput, match="freeze, isolate or both"):
        core.client.quarantine_many(meant(agents[0], agents[1], levels=levels), by="watch")
    assert core.client.agent(agents[0].agent).hold is None


def test_it_is_bounded(core, agents):
    with pytest.raises(InvalidInput, match="orders"):
        core.client.quarantine_many(meant(agents[0]) * 257, by="watch")
