"""Halts: many agents by one order, those included that are just being started, for as long as it stands."""

from __future__ import annotations

import os
import select
import signal
import threading
import time
from pathlib import Path

import pytest

from clawback.errors import ClawbackError, InvalidInput, NotFound, Refused
from clawback.model import Enforcement, Level, Selector, SelectorKind

pytestmark = pytest.mark.kernel

COUNT = "import time\nn = 0\nwhile True:\n    n += 1\n    print(n)\n    time.sleep(0.002)\n"
ORDER = {"reason": "a test", "by": "test"}
ALL = Selector(kind=SelectorKind.ALL)


def first(descriptor: int, seconds: float = 10.0) -> str:
    assert select.select([descriptor], [], [], seconds)[0], "the agent printed nothing"
    return os.read(descriptor, 65536).decode()


def quiet(descriptor: int) -> bool:
    """What was printed before is read away; nothing comes after it."""
    while select.select([descriptor], [], [], 0)[0]:
        os.read(descriptor, 65536)
    return not select.select([descriptor], [], [], 0.2)[0]


def frozen(core, agent: str) -> bool:
    return core.client.probe(agent, Level.FREEZE).enforcement is Enforcement.FULL


def done(core, halt: str) -> bool:
    return not any(one.pending for one in core.client.halt_report(halt).agents)


def test_all_are_frozen_then_isolated_and_go_on_when_it_is_lifted(core):
    outs = {}
    for _ in range(3):
        info, out = core.launch(COUNT)
        outs[info.agent] = out
        first(out)
    report = core.client.halt(ALL, Level.ISOLATE, **ORDER)
    assert {one.agent for one in report.agents} == set(outs)
    assert all(one.results[0].enforcement is Enforcement.FULL for one in report.agents)
    assert all(one.results[0].counts["frozen"] == one.results[0].counts["processes"] > 0 for one in report.agents)
    assert all(quiet(out) for out in outs.values())
    core.until(lambda: done(core, report.halt.id))
    for one in core.client.halt_report(report.halt.id).agents:
        freeze, isolate = one.results
        assert (freeze.level, freeze.enforcement) == (Level.FREEZE, Enforcement.FULL)
        # The pipe that it prints to leads out, and is named: all else is cut.
        assert (isolate.level, isolate.counts["connections"], len(isolate.missing)) == (Level.ISOLATE, 0, 1)
    for agent in outs:
        assert core.client.agent(agent).hold.levels == (Level.FREEZE, Level.ISOLATE)
        assert core.client.agent(agent).hold.orders[0].halt == report.halt.id
    lifted = core.client.lift(report.halt.id, **ORDER)
    assert all(item.enforcement is Enforcement.NONE for one in lifted for item in one.results)
    for agent, out in outs.items():
        first(out)
        assert core.client.agent(agent).hold is None
    assert core.client.halts() == ()


@pytest.mark.parametrize(
    "selector",
    [
        Selector(kind=SelectorKind.TENANT, value="acme"),
        Selector(kind=SelectorKind.TEAM, value="red"),
        Selector(kind=SelectorKind.TAG, value="env=prod"),
    ],
    ids=str,
)
def test_only_those_it_means_and_starts_of_theirs_are_refused(shared, make_spec, selector):
    mine = {"tenant": "acme", "team": "red", "tags": ("env=prod", "x")}
    other = {"tenant": "acme2", "team": "redder", "tags": ("env=production",)}
    meant, _ = shared.launch(COUNT, **mine)
    free, out = shared.launch(COUNT, **other)
    report = shared.client.halt(selector, Level.FREEZE, **ORDER)
    try:
        assert [one.agent for one in report.agents] == [meant.agent]
        assert frozen(shared, meant.agent)
        first(out)
        with pytest.raises(Refused, match="held"):
            shared.client.launch(make_spec("pass", **mine))
        ended = shared.client.launch(make_spec("pass", **other))
        assert shared.client.wait(ended.agent) == 0
    finally:
        shared.client.lift(report.halt.id, **ORDER)
    for agent in (meant.agent, free.agent):
        shared.client.contain(agent, Level.STOP, **ORDER)
        shared.client.release(agent, **ORDER)


def test_a_tree_is_halted_with_all_that_work_for_it(core, make_spec):
    top, _ = core.launch(COUNT)
    child, _ = core.launch(COUNT, parent=top.agent)
    grandchild, _ = core.launch(COUNT, parent=child.agent)
    free, out = core.launch(COUNT)
    report = core.client.halt(Selector(kind=SelectorKind.TREE, value=top.agent), Level.FREEZE, **ORDER)
    assert {one.agent for one in report.agents} == {top.agent, child.agent, grandchild.agent}
    first(out)
    with pytest.raises(Refused):
        core.client.launch(make_spec("pass", parent=grandchild.agent))
    core.client.lift(report.halt.id, **ORDER)
    assert core.client.agent(grandchild.agent).parent == child.agent
    assert not frozen(core, grandchild.agent)
    assert core.client.agent(free.agent).parent == ""


def test_no_child_is_started_for_a_held_parent_nor_for_none(core, make_spec):
    top, _ = core.launch(COUNT)
    core.client.contain(top.agent, Level.FREEZE, **ORDER)
    with pytest.raises(Refused, match="for which it works"):
        core.client.launch(make_spec("pass", parent=top.agent))
    with pytest.raises(InvalidInput, match="parent"):
        core.client.launch(make_spec("pass", parent="nobody"))
    with pytest.raises(InvalidInput, match="parent"):
        core.client.launch(make_spec("pass", agent="self", parent="self"))


def test_a_halt_outlives_the_core_and_a_thaw_behind_its_back(core, make_spec):
    info, out = core.launch(COUNT)
    report = core.client.halt(ALL, Level.FREEZE, **ORDER)
    core.end(signal.SIGKILL)
    Path(core.records()[0].cgroup, "cgroup.freeze").write_text("0")
    first(out)
    core.start()
    assert [one.id for one in core.client.halts()] == [report.halt.id]
    assert frozen(core, info.agent)
    with pytest.raises(Refused):
        core.client.launch(make_spec("pass"))
    assert core.client.halt_report(report.halt.id).agents[0].results[0].enforcement is Enforcement.FULL
    Path(core.records()[0].cgroup, "cgroup.freeze").write_text("0")
    core.until(lambda: frozen(core, info.agent), why="the keeper did not freeze it again")
    core.client.lift(report.halt.id, **ORDER)
    while select.select([out], [], [], 0)[0]:
        os.read(out, 65536)
    first(out)


def test_a_damaged_halt_holds_everybody(core, make_spec):
    info, _ = core.launch(COUNT, tenant="acme")
    report = core.client.halt(Selector(kind=SelectorKind.TENANT, value="nobody"), Level.FREEZE, **ORDER)
    assert report.agents == ()
    core.end()
    (path,) = (core.state / "halts").glob("*.json")
    path.write_text(path.read_text()[:-9])
    core.start()
    assert frozen(core, info.agent)
    assert core.client.health()["damaged"] == [report.halt.id]
    with pytest.raises(Refused):
        core.client.launch(make_spec("pass"))
    core.client.lift(report.halt.id, **ORDER)
    assert not frozen(core, info.agent)


def test_lifting_leaves_what_somebody_else_holds(core):
    held, _ = core.launch(COUNT)
    free, out = core.launch(COUNT)
    core.client.contain(held.agent, Level.FREEZE, incident="INC-1", **ORDER)
    report = core.client.halt(ALL, Level.FREEZE, **ORDER)
    core.client.lift(report.halt.id, **ORDER)
    assert frozen(core, held.agent)
    assert not frozen(core, free.agent)
    first(out)


def test_a_halted_agent_is_not_released_alone(core):
    info, _ = core.launch(COUNT)
    report = core.client.halt(ALL, Level.FREEZE, **ORDER)
    with pytest.raises(Refused, match=report.halt.id):
        core.client.release(info.agent, **ORDER)
    assert frozen(core, info.agent)


def test_stop_keeps_evidence_first_and_ends_the_agents(core):
    info, _ = core.launch(COUNT)
    report = core.client.halt(ALL, Level.STOP, incident="INC-7", **ORDER)
    assert core.client.wait(info.agent) == -signal.SIGKILL
    core.until(lambda: done(core, report.halt.id))
    levels = [one.level for one in core.client.halt_report(report.halt.id).agents[0].results]
    assert levels == [Level.FREEZE, Level.ISOLATE, Level.STOP]
    (manifest,) = (core.state / "evidence" / "INC-7").glob("*/manifest.json")
    assert "processes.json" in manifest.read_text()


@pytest.mark.slow
def test_no_agent_that_is_just_being_started_slips_through(core, make_spec):
    """Starts as fast as can be from four threads; at a moment of its own choice a halt. Nothing prints after it."""
    over = threading.Event()
    problems: list[str] = []

    def start(number: int) -> None:
        turn = 0
        while not over.is_set() and turn < 12:
            turn += 1
            name = f"a{number}-{turn}"
            try:
                core.client.launch(make_spec(COUNT, agent=name))
            except Refused:
                return
            except ClawbackError as error:
                problems.append(f"{name}: {error}")

    threads = [threading.Thread(target=start, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    logs = core.state.glob
    core.until(lambda: any(path.stat().st_size for path in logs("agents/*/*/output.log")), seconds=60)
    report = core.client.halt(ALL, Level.FREEZE, **ORDER)
    for thread in threads:
        thread.join()
    over.set()

    def printed() -> dict[str, int]:
        return {str(path): path.stat().st_size for path in logs("agents/*/*/output.log")}

    before = printed()
    assert sum(before.values()) > 0
    time.sleep(0.3)  # long enough for a hundred lines of any one that runs
    grown = {path: size for path, size in printed().items() if size > before.get(path, 0)}
    assert grown == {}
    assert [one for one in problems if "held" not in one] == []
    for info in core.client.agents():
        assert info.state != "running" or frozen(core, info.agent)
    core.client.lift(report.halt.id, **ORDER)


def test_selectors_that_are_none(shared):
    for selector in (
        Selector(kind=SelectorKind.TENANT),
        Selector(kind=SelectorKind.ALL, value="x"),
        Selector(kind=SelectorKind.TAG, value="a\nb"),
    ):
        with pytest.raises(InvalidInput, match="selector"):
            shared.client.halt(selector, Level.FREEZE, **ORDER)
    assert shared.client.halts() == ()
    with pytest.raises(NotFound):
        shared.client.lift("HALT-X", **ORDER)
    with pytest.raises(NotFound):
        shared.client.halt_report("HALT-X")
