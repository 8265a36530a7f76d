"""Who outlives whom: the core's death, the shim's door, the spares, and what is left afterwards."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from clawback.enforcement.kernel import cgroups
from clawback.enforcement.sandbox import inventory, layers
from clawback.enforcement.sandbox.door import fetch_listener
from clawback.enforcement.sandbox.inventory import is_process
from clawback.enforcement.sandbox.spawner import Spawner
from clawback.errors import NotEnforced, Unreachable
from clawback.model import AgentState

pytestmark = pytest.mark.kernel

CORE = """
import sys, time
from pathlib import Path
from clawback.enforcement.policy.types import SandboxPolicy
from clawback.enforcement.sandbox.spawner import Spawner
from clawback.model import LaunchSpec
spawner = Spawner.start(Path(sys.argv[1]), cgroup=sys.argv[2])
spec = LaunchSpec(agent="alpha", command=("sleep", "300"), policy="p", policy_version=1, policy_text="")
launched = spawner.launch(spec, SandboxPolicy(name="p"), secrets={})
print(spawner.pid, launched.record.folder, flush=True)
time.sleep(300)
"""


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


@pytest.mark.usefixtures("way")
def test_a_killed_core_leaves_its_agents_running_and_nothing_else(state: Path, group: str, until: Any) -> None:
    core = subprocess.Popen([sys.executable, "-c", CORE, str(state), group], stdout=subprocess.PIPE, text=True)
    assert core.stdout is not None
    zygote, folder = core.stdout.readline().split()
    core.kill()
    core.wait()
    core.stdout.close()
    until(lambda: not _alive(int(zygote)))
    record = until(lambda: (found := inventory.load(folder)).layers and found)
    assert inventory.state(record) is AgentState.RUNNING

    # A new core finds it, and gets its gateway socket back from the shim.
    (found,), problems = inventory.read_all(state)
    assert found == record
    assert problems == ()
    with socket.socket(fileno=fetch_listener(record)) as listener:
        assert listener.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN) == 1
        assert listener.getsockname()[1] == 3128

    os.kill(record.pid, signal.SIGKILL)
    until(lambda: inventory.state(record) is AgentState.EXITED)
    assert inventory.exit_status(record) == 137
    until(lambda: not is_process(record.shim_pid, record.shim_start_ticks))
    assert inventory.remove(record)
    assert not Path(folder, "shim.sock").exists()
    until(lambda: cgroups.remove_parent(cgroups.discover(), group))


def test_the_gateway_socket_accepts_what_the_agent_connects(sandboxes: Any) -> None:
    launched = sandboxes.launch(
        sys.executable, "-c", "import socket\ns = socket.create_connection(('127.0.0.1', 3128))\ns.sendall(b'hello')"
    )
    with socket.socket(fileno=os.dup(launched.listener_fd)) as listener:
        listener.settimeout(10)
        peer, _ = listener.accept()
        with peer:
            peer.settimeout(10)
            assert peer.recv(5) == b"hello"
    assert launched.wait(10) == 0


def test_a_tree_whose_shim_was_killed_ends_with_it(sandboxes: Any, until: Any) -> None:
    launched = sandboxes.launch("sh", "-c", "trap '' TERM HUP; sleep 300 & sleep 300")
    record = launched.record
    os.kill(record.shim_pid, signal.SIGKILL)
    until(lambda: not is_process(record.pid, record.start_ticks))
    until(lambda: not record.cgroup or not cgroups.processes(record.cgroup))
    assert inventory.state(record) is AgentState.LOST
    with pytest.raises(Unreachable):
        launched.wait(10)


def test_a_shim_keeps_no_right(sandboxes: Any) -> None:
    status = layers.status_of(sandboxes.launch("sleep", "300").record.shim_pid)
    assert {int(status[name], 16) for name in ("CapInh", "CapPrm", "CapEff", "CapAmb")} == {0}
    assert status["NoNewPrivs"] == "1"


@pytest.mark.skipif(os.geteuid() != 0 or not cgroups.discover().unified, reason="needs root and the unified hierarchy")
@pytest.mark.usefixtures("way")
def test_the_end_of_the_core_s_own_group_is_not_its_agents_end(state: Path, group: str, until: Any) -> None:
    service = Path(cgroups.discover().unified, f"{group}-service")
    service.mkdir()
    try:
        core = subprocess.Popen(
            [
                "sh",
                "-c",
                f'echo 0 > {service}/cgroup.procs && exec "$0" "$@"',
                sys.executable,
                "-c",
                CORE,
                state,
                group,
            ],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert core.stdout is not None
        zygote, folder = core.stdout.readline().split()
        core.stdout.close()
        record = until(lambda: (found := inventory.load(folder)).layers and found)
        (service / "cgroup.kill").write_text("1")
        assert core.wait(10) == -signal.SIGKILL
        until(lambda: not _alive(int(zygote)))  # of another group: it ends with its socket
        assert is_process(record.shim_pid, record.shim_start_ticks)
        assert inventory.state(record) is AgentState.RUNNING
        os.kill(record.pid, signal.SIGKILL)
        until(lambda: not is_process(record.shim_pid, record.shim_start_ticks))
        assert inventory.exit_status(record) == 137
        assert inventory.remove(record)
        until(lambda: cgroups.remove_parent(cgroups.discover(), group))
    finally:
        until(lambda: not cgroups.processes(str(service)))
        service.rmdir()


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: groups")
def test_a_shim_is_in_no_group_of_the_core(sandboxes: Any, group: str) -> None:
    launched = sandboxes.launch("sleep", "300")
    lines = Path(f"/proc/{launched.record.shim_pid}/cgroup").read_text().splitlines()
    inside = [line.split(":", 2) for line in lines]
    # By the unified hierarchy a service manager ends what belongs to a service; on a hybrid host by its own, too.
    decisive = [path for number, names, path in inside if number == "0" or names == "name=systemd"]
    assert decisive
    assert all(path.endswith(f"/{cgroups.aside(group)}") for path in decisive)


def test_a_record_that_is_none_is_named_and_the_others_are_read(sandboxes: Any, state: Path, until: Any) -> None:
    record = sandboxes.launch("sleep", "300").record
    until(lambda: inventory.load(record.folder).layers)
    bad = state / "agents" / "beta" / "one"
    bad.mkdir(parents=True)
    (bad / "agent.json").write_text('{"agent": "beta"')
    records, problems = inventory.read_all(state)
    assert records == (record,)
    assert len(problems) == 1
    assert str(bad) in problems[0]


def test_helpers_answer_fail_and_are_bounded(sandboxes: Any) -> None:
    run = sandboxes.spawner.run
    assert run("clawback.enforcement.kernel.cgroups:processes", {"group": "/no/such/group"}) == []
    with pytest.raises(OSError, match="No such file"):
        run("clawback.enforcement.kernel.cgroups:discover", {"mountinfo": "/no/such/file"})
    with pytest.raises(NotEnforced, match="not the core's"):
        run("os:getpid", {})
    with pytest.raises(NotEnforced, match=r"did not finish within 0\.2 s"):
        run("clawback.enforcement.kernel.libc:syscall", {"name_or_number": "pause"}, timeout=0.2)


def test_helpers_inherit_nothing_of_the_core(sandboxes: Any) -> None:
    reader, writer = os.pipe()
    os.set_inheritable(writer, True)
    try:
        seen = sandboxes.spawner.run("clawback.enforcement.sandbox.files:descriptors", {})
    finally:
        os.close(reader)
        os.close(writer)
    # The standard three, the socket to the core, and the listing itself.
    assert len(seen) <= 5


@pytest.mark.usefixtures("way")
def test_closing_ends_the_spares(state: Path, group: str) -> None:
    with Spawner.start(state, cgroup=group, spares=2) as spawner:
        spawner.settle()
    for root in [cgroups.discover().unified, *cgroups.discover().v1.values()]:
        assert not root or not Path(root, group).exists()
    assert list((state / "agents").iterdir()) == []


def test_the_record_survives_a_round_trip(sandboxes: Any) -> None:
    launched = sandboxes.launch("true")
    launched.wait(10)
    record = launched.record
    text = Path(record.folder, "agent.json").read_text()
    assert inventory.parse(json.loads(text)) == record
