"""One incident through the whole house, and the command line beside it."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from clawback.enforcement.core.claims import unclaimed_uid_base
from clawback.enforcement.kernel import cgroups
from clawback.model import Enforcement, Orchestration, ReceiptState

pytestmark = [pytest.mark.kernel, pytest.mark.parts, pytest.mark.slow]

POLICY_FILE = """\
apiVersion: openshell.nvidia.com/v1
kind: SandboxPolicy
metadata: {name: run}
spec:
  isolation: {network: restricted, filesystem: read-only, syscalls: default}
"""


def run(house, *words, **options):
    return subprocess.run(house.command(*words), capture_output=True, text=True, timeout=90, check=False, **options)


def test_a_rogue_agent_is_contained_replaced_and_restored(house):
    info = house.launch()
    house.go_rogue(info)
    incident = house.closed(info)
    assert incident.orchestration is Orchestration.PREFECT
    assert {receipt.state for receipt in incident.receipts} == {ReceiptState.VERIFIED}
    done = {receipt.action for receipt in incident.receipts}
    assert {"agent.freeze", "agent.isolate", "evidence.collect", "agent.seal", "vault.rotate-token"} <= done
    assert {"aws.rotate-key", "aws.refuse-sessions", "policy.restore", "agent.relaunch", "policy.validate"} <= done
    again = house.world.core.agent(info.agent)
    assert again.instance != info.instance
    assert again.hold is None
    house.end(info)


def test_run_ends_with_the_program_s_status_and_output(house, tmp_path):
    policy = tmp_path / "run.yaml"
    policy.write_text(POLICY_FILE)
    said = run(house, "run", "--policy", str(policy), "--", "/bin/sh", "-c", "echo out; echo err >&2; exit 7")
    assert (said.returncode, said.stdout) == (7, "out\n")
    assert "err\n" in said.stderr
    assert run(house, "run", "--policy", str(policy), "--", "/bin/sh", "-c", "kill -9 $$").returncode == 137
    assert run(house, "run", "--policy", str(policy), "--", "/no/such/program").returncode in {125, 127}


def test_contain_and_release_by_hand_with_only_the_core(house):
    info = house.launch(credentials=False)
    said = run(house, "contain", info.agent, "--level", "isolate", "--reason", "by hand", "--json")
    assert said.returncode == 0, said.stderr
    results = json.loads(said.stdout)
    assert [result["enforcement"] for result in results] == ["full", "full"]
    held = house.world.core.agent(info.agent).hold
    assert held is not None
    assert held.reason == "by hand"
    assert "operator:" in held.by
    said = run(house, "release", info.agent, "--reason", "a test", "--json")
    assert said.returncode == 0, said.stderr
    assert house.world.core.agent(info.agent).hold is None
    house.end(info)


def test_show_incidents_and_ticket(house):
    info = house.launch(credentials=False)
    house.go_rogue(info)
    incident = house.closed(info)
    listed = json.loads(run(house, "incidents", "--json").stdout)
    assert incident.id in {row["id"] for row in listed}
    shown = json.loads(run(house, "show", incident.id, "--json").stdout)
    assert shown["times_ms"]["frozen"] is not None
    assert all(receipt["state"] == "verified" for receipt in shown["receipts"])
    assert incident.id in run(house, "ticket", "export", incident.id).stdout
    jira = json.loads(run(house, "ticket", "export", incident.id, "--format", "jira").stdout)
    assert jira["fields"]["description"]["type"] == "doc"
    house.end(info)


def test_every_level_is_full_and_seen(house):
    from clawback.model import Level

    info = house.launch(credentials=False)
    for level in Level:
        result = house.world.core.contain(info.agent, level, instance=info.instance, reason="ladder", by="test")
        assert result.enforcement is Enforcement.FULL, (level, result)
        if level is not Level.STOP:
            assert house.world.core.probe(info.agent, level).enforcement is Enforcement.FULL


def test_up_starts_everything_and_ends_in_order(house, tmp_path):
    """A second house beside the first, by the command."""
    state = house.state / "second"
    file = state / "clawback.yaml"
    state.mkdir()
    file.write_text(settings(state, f"clawback-second-{house.state.name}"))
    up = subprocess.Popen(
        [sys.executable, "-m", "clawback", "--config", str(file), "up"], stdout=subprocess.PIPE, text=True
    )
    try:
        assert up.stdout is not None
        lines = [up.stdout.readline() for _ in range(4)]
        assert [line.split()[0] for line in lines] == ["core", "gateway", "watch", "prefect"]
    finally:
        up.send_signal(signal.SIGTERM)
        assert up.wait(30) == 0


def test_nothing_of_a_killed_up_lives_on(house):
    """Its parts end with it, whatever user they became."""
    state = house.state / "killed"
    state.mkdir()
    file = state / "clawback.yaml"
    file.write_text(settings(state, f"clawback-killed-{house.state.name}"))
    up = subprocess.Popen(
        [sys.executable, "-m", "clawback", "--config", str(file), "up"], stdout=subprocess.PIPE, text=True
    )
    assert up.stdout is not None
    parts = [int(up.stdout.readline().split("pid")[1].split()[0]) for _ in range(3)]
    up.kill()
    up.wait()
    house.until("the end of its parts", lambda: not any(alive(pid) for pid in parts))
    house.until("the end of its spare sandbox", lambda: removed(f"clawback-killed-{house.state.name}"))


def settings(state, group):
    return f"state: {state}\ncore: {{cgroup: {group}, uid_base: {unclaimed_uid_base()}}}\n"


def removed(name):
    """Remove the groups that a killed core leaves; false while something in them is still ending."""
    return cgroups.remove_parent(cgroups.discover(), name, timeout=0)


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False
