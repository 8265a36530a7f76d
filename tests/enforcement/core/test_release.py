"""Who may lift what: several holders, the user who ordered it, and dates that pass."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from clawback.errors import Refused
from clawback.model import Enforcement, Level, Lifecycle, Selector, SelectorKind, Severity

pytestmark = pytest.mark.kernel

SLEEP = "import time; time.sleep(600)"
ORDER = {"reason": "a test", "by": "test"}
AS_OTHER = """
import os, sys
from pathlib import Path
from clawback.enforcement.core.client import CoreClient
from clawback.errors import ClawbackError
from clawback.model import Level
os.setgroups([]); os.setgid(65534); os.setuid(65534)
client = CoreClient(Path(sys.argv[1]))
try:
    if sys.argv[2] == "contain":
        client.contain(sys.argv[3], Level.FREEZE, reason="r", by="other")
    else:
        client.release(sys.argv[3], reason="r", by="test", everyone=True)
    print("done")
except ClawbackError as error:
    print(f"{type(error).__name__}: {error.message}")
"""


def as_other(core, what: str, agent: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", AS_OTHER, str(core.state / "run" / "core.sock"), what, agent],
        capture_output=True,
        text=True,
        check=True,
        timeout=30,
    )
    return done.stdout.strip()


def frozen(core, agent: str) -> bool:
    return core.client.probe(agent, Level.FREEZE).enforcement is Enforcement.FULL


@pytest.fixture
def separated(make_core):
    core = make_core({65534: ("contain", "release", "agents")}, "release=ReleaseRules(separation=True)")
    core.start()
    return core


def test_what_one_incident_releases_the_other_holds_on(core):
    info, _ = core.launch(SLEEP)
    core.client.contain(info.agent, Level.FREEZE, incident="INC-1", **ORDER)
    core.client.contain(info.agent, Level.ISOLATE, incident="INC-1", **ORDER)
    core.client.contain(info.agent, Level.FREEZE, incident="INC-2", reason="r", by="other")
    with pytest.raises(Refused, match="INC-1, INC-2"):
        core.client.release(info.agent, **ORDER)
    results = core.client.release(info.agent, incident="INC-1", **ORDER)
    assert [(one.level, one.enforcement) for one in results] == [
        (Level.ISOLATE, Enforcement.NONE),
        (Level.FREEZE, Enforcement.FULL),
    ]
    assert "INC-2" in results[1].observed
    assert frozen(core, info.agent)
    assert core.client.agent(info.agent).hold.levels == (Level.FREEZE,)
    assert core.client.release(info.agent, incident="INC-3", **ORDER) == ()
    core.client.release(info.agent, incident="INC-2", **ORDER)
    assert core.client.agent(info.agent).hold is None
    assert not frozen(core, info.agent)


def test_what_was_ordered_by_hand_belongs_to_the_incident_that_works_on_the_agent(core):
    info, _ = core.launch(SLEEP)
    core.client.contain(info.agent, Level.FREEZE, reason="looks bad", by="ann")
    core.client.contain(info.agent, Level.FREEZE, incident="CASE-2", reason="mine", by="ben")
    core.client.contain(info.agent, Level.FREEZE, incident="INC-1", **ORDER)
    core.client.release(info.agent, incident="INC-1", **ORDER)
    assert [order.incident for order in core.client.agent(info.agent).hold.orders] == ["CASE-2"]
    assert frozen(core, info.agent)


def test_everyones_at_once_when_it_is_said(core):
    info, _ = core.launch(SLEEP)
    for incident in ("INC-1", "INC-2"):
        core.client.contain(info.agent, Level.FREEZE, incident=incident, **ORDER)
    core.client.release(info.agent, everyone=True, **ORDER)
    assert core.client.agent(info.agent).hold is None


def test_who_ordered_it_does_not_lift_it_whatever_name_he_gives(separated):
    info, _ = separated.launch(SLEEP)
    separated.client.contain(info.agent, Level.FREEZE, **ORDER)
    with pytest.raises(Refused, match="may not lift it"):
        separated.client.release(info.agent, reason="r", by="somebody else")
    assert frozen(separated, info.agent)
    event = separated.wait_for(
        lambda one: isinstance(one, Lifecycle) and one.status == "release refused", agent=info.agent
    )
    assert event.severity is Severity.MEDIUM
    assert "somebody else" in event.message
    assert as_other(separated, "release", info.agent) == "done"
    assert separated.client.agent(info.agent).hold is None


def test_nor_does_he_as_one_of_several(separated):
    info, _ = separated.launch(SLEEP)
    separated.client.contain(info.agent, Level.FREEZE, **ORDER)
    assert as_other(separated, "contain", info.agent) == "done"
    assert as_other(separated, "release", info.agent).startswith("Refused")
    with pytest.raises(Refused):
        separated.client.release(info.agent, everyone=True, **ORDER)
    assert {order.uid for order in separated.client.agent(info.agent).hold.orders} == {0, 65534}
    assert frozen(separated, info.agent)


def test_nor_his_halt(separated):
    report = separated.client.halt(Selector(kind=SelectorKind.ALL), Level.FREEZE, **ORDER)
    with pytest.raises(Refused):
        separated.client.lift(report.halt.id, **ORDER)
    assert len(separated.client.halts()) == 1


def test_only_approvers_where_there_are_any(make_core):
    core = make_core({65534: ("release",)}, "release=ReleaseRules(approvers=frozenset({65534}))")
    core.start()
    info, _ = core.launch(SLEEP)
    core.client.contain(info.agent, Level.FREEZE, **ORDER)
    with pytest.raises(Refused, match="may not release"):
        core.client.release(info.agent, **ORDER)
    assert as_other(core, "release", info.agent) == "done"


def test_a_hold_whose_time_is_over_holds_on_and_says_so(core):
    info, _ = core.launch(SLEEP)
    core.client.contain(info.agent, Level.FREEZE, due_seconds=0.05, **ORDER)
    event = core.wait_for(lambda one: isinstance(one, Lifecycle) and one.status == "due", agent=info.agent)
    assert "holds on" in event.message
    assert frozen(core, info.agent)
    assert core.client.agent(info.agent).hold.orders[0].due
    core.end(signal.SIGKILL)
    Path(core.records()[0].cgroup, "cgroup.freeze").write_text("0")
    core.start()
    assert frozen(core, info.agent)
    assert core.client.agent(info.agent).hold.orders[0].due
    core.client.release(info.agent, **ORDER)
    assert not frozen(core, info.agent)


def test_a_hold_of_an_agent_without_a_record_can_be_lifted(core):
    """Its folder is gone, or was never there: the order stands all the same, and can be ended."""
    info, _ = core.launch("pass")
    core.client.wait(info.agent)
    core.client.contain(info.agent, Level.FREEZE, **ORDER)
    core.end()
    (core.state / "agents" / info.agent).rename(core.state / "gone")
    core.start()
    assert core.client.release(info.agent, **ORDER) == ()
    assert list((core.state / "holds").rglob("*.json")) == []
    (core.state / "gone").rename(core.state / "agents" / info.agent)
