"""The core as its callers see it, with real agents that look from inside."""

from __future__ import annotations

import errno
import json
import os
import select
import signal
import time
from dataclasses import replace
from pathlib import Path

import pytest

from clawback.connectors.secret_store import FileSecretStore
from clawback.errors import InvalidInput, NotFound, Refused, Unreachable
from clawback.model import AgentState, Attempt, CredentialRef, Enforcement, Level, Lifecycle, Severity

pytestmark = pytest.mark.kernel

COUNT = "import time\nn = 0\nwhile True:\n    n += 1\n    print(n)\n    time.sleep(0.002)\n"
REACH = """
import socket, time
while True:
    try:
        socket.create_connection(("127.0.0.1", 3128), 1).close()
        print("reached")
    except OSError as error:
        print("failed", error.errno)
    time.sleep(0.005)
"""
ORDER = {"reason": "a test", "by": "test"}


def lines(descriptor: int, *, seconds: float = 0.2) -> list[str]:
    """What comes until nothing has come for a while."""
    data = b""
    while select.select([descriptor], [], [], seconds)[0]:
        part = os.read(descriptor, 65536)
        if not part:
            break
        data += part
    return data.decode().split()


def first(descriptor: int, seconds: float = 10.0) -> str:
    assert select.select([descriptor], [], [], seconds)[0], "the agent printed nothing"
    return os.read(descriptor, 4096).decode()


def drain_until(descriptor: int, word: str, seconds: float = 10.0) -> None:
    end = time.monotonic() + seconds
    while word not in first(descriptor):
        assert time.monotonic() < end, f"the agent never printed {word!r}"


def test_launch_wait_and_exit_status(core):
    info, out = core.launch("print('hello'); raise SystemExit(7)")
    assert core.client.wait(info.agent, instance=info.instance) == 7
    assert lines(out) == ["hello"]
    ended = core.client.agent(info.agent)
    assert (ended.state, ended.exit_status) == (AgentState.EXITED, 7)


def test_output_goes_to_the_log_without_descriptors(core, make_spec):
    info = core.client.launch(make_spec("print('kept')"))
    assert core.client.wait(info.agent) == 0
    log = core.state / "agents" / info.agent / info.instance / "output.log"
    assert log.read_text() == "kept\n"


def test_of_an_instance_that_was_replaced_it_is_seen_whether_anything_is_left(core, make_spec):
    asked = make_spec(COUNT)
    before = core.client.launch(asked)
    assert core.client.probe(before.agent, Level.STOP, instance=before.instance).counts["processes"] > 0
    now = core.client.relaunch(before.agent, policy_version=1, policy_text=asked.policy_text, reason="x", by="y")
    assert now.instance != before.instance
    left = core.client.probe(before.agent, Level.STOP, instance=before.instance)
    assert (left.enforcement, left.counts["processes"]) == (Enforcement.FULL, 0)
    assert core.client.probe(before.agent, Level.STOP).enforcement is Enforcement.NONE
    with pytest.raises(InvalidInput):
        core.client.probe(before.agent, Level.FREEZE, instance=before.instance)
    for nobody in ("other", "..", "../x", "a/b"):
        with pytest.raises(NotFound):
            core.client.probe(before.agent, Level.STOP, instance=nobody)


def test_freeze_stops_and_release_lets_go_on(core):
    info, out = core.launch(COUNT)
    first(out)
    result = core.client.contain(info.agent, Level.FREEZE, **ORDER)
    assert result.enforcement is Enforcement.FULL
    last = lines(out)
    assert lines(out) == [], f"printed after the freeze, behind {last[-1:]}"
    assert core.client.agent(info.agent).hold.levels == (Level.FREEZE,)
    assert core.client.probe(info.agent, Level.FREEZE).enforcement is Enforcement.FULL
    (released,) = core.client.release(info.agent, **ORDER)
    assert released.enforcement is Enforcement.NONE
    first(out)
    assert core.client.agent(info.agent).hold is None


def test_isolate_is_seen_from_inside_and_release_opens_the_way_again(core):
    info, out = core.launch(REACH)
    drain_until(out, "reached")
    result = core.client.contain(info.agent, Level.ISOLATE, **ORDER)
    # The pipe that it prints to leads out of the sandbox, and is named: all else is cut.
    assert (result.counts["addresses"], result.counts["connections"], len(result.missing)) == (0, 0, 1), result
    drain_until(out, "failed")
    seen = "".join(first(out) for _ in range(10))
    assert "reached" not in seen
    assert f"failed {errno.ENETUNREACH}" in seen
    assert [one.enforcement for one in core.client.release(info.agent, **ORDER)] == [Enforcement.NONE]
    drain_until(out, "reached")


def test_restrict_and_seal_are_seen_by_an_attempt_from_inside(core):
    info, out = core.launch(COUNT)
    first(out)
    spawn = Attempt(kind="spawn", target="/bin/true")
    (before,) = core.client.attempt(info.agent, [spawn])
    assert not before.denied, before.detail
    for level in (Level.RESTRICT, Level.SEAL):
        result = core.client.contain(info.agent, level, **ORDER)
        # The pipe that it prints to stays open, and is named: restrict alone counts that as missing.
        assert result.enforcement is Enforcement.FULL or (level is Level.RESTRICT and len(result.missing) == 1), result
        (after,) = core.client.attempt(info.agent, [spawn])
        assert after.denied, after.detail
    results = core.client.release(info.agent, **ORDER)
    assert [(one.level, one.enforcement) for one in results] == [
        (Level.SEAL, Enforcement.FULL),
        (Level.RESTRICT, Enforcement.NONE),
    ]


def test_stop_keeps_the_hold_and_a_start_is_refused_until_it_is_released(core, make_spec):
    info, _ = core.launch(COUNT)
    assert core.client.contain(info.agent, Level.STOP, **ORDER).enforcement is Enforcement.FULL
    assert core.client.wait(info.agent) == -signal.SIGKILL
    with pytest.raises(Refused, match="held"):
        core.client.launch(make_spec("pass", agent=info.agent))
    new = {"policy_version": 2, "policy_text": make_spec("").policy_text, **ORDER}
    with pytest.raises(Refused, match="held"):
        core.client.relaunch(info.agent, **new)
    core.client.release(info.agent, **ORDER)
    again = core.client.relaunch(info.agent, **new)
    assert again.instance != info.instance
    assert (again.policy_version, again.command) == (2, info.command)
    assert again.hold is None


def test_an_order_for_an_earlier_instance_is_refused(core):
    info, out = core.launch(COUNT)
    with pytest.raises(Refused, match="not as"):
        core.client.contain(info.agent, Level.FREEZE, instance="20200101T000000-00000000", **ORDER)
    assert core.client.agent(info.agent).hold is None
    first(out)


def test_a_running_agent_is_not_started_twice(core, make_spec):
    info, _ = core.launch(COUNT)
    with pytest.raises(Refused, match="running already"):
        core.client.launch(make_spec("pass", agent=info.agent))


def test_unknown_agents_levels_and_policies(core, make_spec):
    with pytest.raises(NotFound):
        core.client.agent("nobody")
    with pytest.raises(NotFound):
        core.client.contain("nobody", Level.FREEZE, **ORDER)
    with pytest.raises(InvalidInput, match="policy"):
        core.client.launch(make_spec("pass", policy_text="{"))
    with pytest.raises(InvalidInput, match="agent"):
        core.client.launch(make_spec("pass", agent="../x"))


def test_credentials_come_from_the_store_and_a_missing_one_is_named(core, make_spec):
    ref = CredentialRef(kind="vault-token", name="token", identifiers={"accessor": "a"})
    asked = make_spec("print(open('/run/secrets/token').read())", credentials=(ref,))
    with pytest.raises(NotFound, match="token"):
        core.client.launch(asked)
    store = FileSecretStore(core.state / "secrets")
    store.put(asked.agent, ref, "first-value")
    info = core.client.launch(asked)
    core.client.wait(info.agent)
    assert info.credentials == (ref,)
    log = core.state / "agents" / info.agent / info.instance / "output.log"
    assert log.read_text() == "first-value\n"
    renewed = replace(ref, identifiers={"accessor": "b"})
    store.put(asked.agent, renewed, "second-value")
    new = core.client.relaunch(info.agent, policy_version=1, policy_text=asked.policy_text, **ORDER)
    core.client.wait(info.agent)
    assert new.credentials == (renewed,)
    assert (core.state / "agents" / info.agent / new.instance / "output.log").read_text() == "second-value\n"
    for path in core.state.rglob("*"):
        if path.is_file() and "secrets" not in path.parts and path.name != "output.log":
            assert b"-value" not in path.read_bytes(), path


def test_evidence_of_a_frozen_agent_leaves_it_frozen(core):
    info, out = core.launch(COUNT)
    first(out)
    core.client.contain(info.agent, Level.FREEZE, **ORDER)
    bundle = core.client.evidence(info.agent, incident="inc-1")
    assert bundle.files > 0
    assert core.client.probe(info.agent, Level.FREEZE).enforcement is Enforcement.FULL


def test_killed_core_agents_run_on_and_are_found_with_their_hold(core):
    held, held_out = core.launch(COUNT)
    free, free_out = core.launch(COUNT)
    first(held_out)
    core.client.contain(held.agent, Level.FREEZE, **ORDER)
    lines(held_out)
    core.end(signal.SIGKILL)
    with pytest.raises(Unreachable):
        core.client.agents()
    first(free_out)
    # Somebody thaws it while no core is there to see: the hold is asserted before the new core's socket appears.
    cgroup = next(one for one in core.records() if one.agent == held.agent).cgroup
    Path(cgroup, "cgroup.freeze").write_text("0")
    first(held_out)
    core.start()
    assert {one.agent: one.instance for one in core.client.agents()} == {
        held.agent: held.instance,
        free.agent: free.instance,
    }
    assert core.client.probe(held.agent, Level.FREEZE).enforcement is Enforcement.FULL
    lines(held_out)
    assert lines(held_out) == []
    core.client.release(held.agent, **ORDER)
    first(held_out)


def test_a_hold_that_somebody_undoes_is_asserted_again_and_reported(core):
    info, out = core.launch(COUNT)
    first(out)
    core.client.contain(info.agent, Level.FREEZE, **ORDER)
    cgroup = core.records()[0].cgroup
    Path(cgroup, "cgroup.freeze").write_text("0")
    event = core.wait_for(lambda one: isinstance(one, Lifecycle) and "reasserted" in one.status, agent=info.agent)
    assert event.component == "hold"
    assert core.client.probe(info.agent, Level.FREEZE).enforcement is Enforcement.FULL


def test_an_orderly_end_leaves_agents_running_and_no_socket(core):
    _, out = core.launch(COUNT)
    assert core.end() == 0
    assert not (core.state / "run" / "core.sock").exists()
    lines(out, seconds=0)
    first(out)


def test_a_lost_tree_is_reported(core):
    info, out = core.launch(COUNT)
    first(out)
    record = core.records()[0]
    os.kill(record.shim_pid, signal.SIGKILL)
    os.kill(record.pid, signal.SIGKILL)
    event = core.wait_for(
        lambda one: isinstance(one, Lifecycle) and one.component == "sandbox" and one.status == "lost",
        agent=info.agent,
    )
    assert event.activity_id == Lifecycle.STOP
    assert core.client.agent(info.agent).state is AgentState.LOST
    assert core.client.wait(info.agent) == 255


def test_only_one_core_serves_a_state(core):
    from clawback.enforcement.core.main import serve

    with pytest.raises(Refused, match="another core"):
        serve(core.state, cgroup=core.group, uid_base=core.uid_base)


def test_metrics_and_health(core):
    info, _ = core.launch(COUNT)
    core.client.contain(info.agent, Level.FREEZE, **ORDER)
    page = core.client.metrics()
    assert 'clawback_agents{state="running"} 1.0' in page
    assert 'clawback_containments_total{enforcement="full",level="freeze"} 1.0' in page
    assert core.client.health()["agents"] == 1


def test_a_lost_shim_is_reported(core):
    info, out = core.launch(COUNT)
    first(out)
    os.kill(core.records()[0].shim_pid, signal.SIGKILL)
    event = core.wait_for(
        lambda one: isinstance(one, Lifecycle) and one.component in {"shim", "sandbox"} and one.status == "lost",
        agent=info.agent,
    )
    assert (event.activity_id, event.severity) == (Lifecycle.STOP, Severity.HIGH)


def test_an_agent_found_frozen_without_a_hold_is_held(core):
    """What a core leaves that dies between freezing and writing the hold down."""
    info, _ = core.launch("import time; time.sleep(600)")
    record = json.loads((core.state / "agents" / info.agent / info.instance / "agent.json").read_text())
    core.process.kill()
    core.process.wait()
    Path(record["cgroup"], "cgroup.freeze").write_text("1")
    core.start()
    hold = core.client.agent(info.agent).hold
    assert hold is not None
    assert hold.levels == (Level.FREEZE,)
    assert core.client.probe(info.agent, Level.FREEZE).enforcement is Enforcement.FULL
    core.client.release(info.agent, reason="a test", by="test")
    assert core.client.probe(info.agent, Level.FREEZE).enforcement is Enforcement.NONE


def test_freeze_and_isolate_by_one_order_each_looked_at_again(core):
    info, out = core.launch(REACH)
    drain_until(out, "reached")
    made = core.client.quarantine(info.agent, (Level.ISOLATE, Level.FREEZE), instance=info.instance, **ORDER)
    assert [one.level for one in made.applied] == [one.level for one in made.seen] == [Level.FREEZE, Level.ISOLATE]
    for frozen, cut in (made.applied, made.seen):
        assert frozen.enforcement is Enforcement.FULL
        assert (cut.counts["uncut"], cut.counts["connections"]) == (0, 0)  # its output, a pipe, leads out and is named
    assert made.agent.hold is not None
    assert made.agent.hold.levels == (Level.FREEZE, Level.ISOLATE)
    assert len(made.agent.hold.orders) == 1
    lines(out)
    assert not lines(out), "it goes on"
    core.client.release(info.agent, levels=(Level.FREEZE,), **ORDER)
    drain_until(out, "failed")  # thawed, and still cut off


@pytest.mark.parametrize("levels", [(), (Level.RESTRICT,), (Level.FREEZE, Level.STOP)])
def test_only_what_waits_for_nothing_is_ordered_at_once(core, levels):
    info, out = core.launch(COUNT)
    with pytest.raises(InvalidInput):
        core.client.quarantine(info.agent, levels, **ORDER)
    with pytest.raises(Refused):
        core.client.quarantine(info.agent, (Level.FREEZE,), instance="another", **ORDER)
    assert core.client.agent(info.agent).hold is None
    first(out)
