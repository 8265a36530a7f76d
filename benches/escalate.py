"""What system calls cost under the filters: ordinary ones, and those that go to the supervisor.

All times are taken inside an agent by a loop of its own, each call with its own pair of clock readings, whose cost is
taken off. `bare` is the same program outside any sandbox. What is escalated is decided by a rule: `let go` on its
registers; `connect` (a Unix socket) and `openat` are made by the supervisor's hand inside; `refused` is refused by a
rule, and `alone` by the shim without a supervisor.
"""

from __future__ import annotations

import json
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benches.running import uid_base
from benches.statistics import Metric, metric
from clawback.enforcement.policy.calls import CallAction, CallRule, SyscallPolicy
from clawback.enforcement.policy.escalation import Decision, EscalationRule
from clawback.enforcement.policy.types import SandboxPolicy
from clawback.enforcement.sandbox import inventory
from clawback.enforcement.sandbox.record import Sandbox
from clawback.enforcement.sandbox.spawner import Spawner
from clawback.enforcement.supervise.client import SupervisorClient
from clawback.errors import Unreachable
from clawback.model import LaunchSpec

__all__ = ["RUNS", "measure"]

RUNS = (100, 10)

PROGRAM = r"""
import ctypes, json, os, socket, sys, time
C = ctypes.CDLL(None)
clock = time.perf_counter_ns
count, folder = int(sys.argv[1]), sys.argv[2]
def each(number, action, prepare=lambda: (), after=lambda *_: None):
    times = []
    for _ in range(number + 20):
        arguments = prepare()
        began = clock(); result = action(*arguments); times.append(clock() - began)
        after(result, *arguments)
    return times[20:]
def batch(action):
    "ns a call, over 50 batches of 5,000"
    found = []
    for _ in range(50):
        began = clock()
        for _ in range(5000): action()
        found.append((clock() - began) / 5000)
    return found
def nothing(): pass
result = {"loop": batch(nothing), "ordinary getppid": batch(os.getppid), "ordinary geteuid": batch(os.geteuid)}
if sys.argv[3] == "escalated":
    result["empty"] = each(count, nothing)
    result["let go"] = each(count, lambda: C.getpgid(0))
    result["refused"] = each(count, lambda: C.getsid(0))
    server = socket.socket(socket.AF_UNIX); server.bind(folder + "/s"); server.listen(512)
    def connected(_result, one):
        one.close(); server.accept()[0].close()
    result["connect"] = each(count, lambda one: one.connect(folder + "/s"), lambda: (socket.socket(socket.AF_UNIX),), connected)
    open(folder + "/f", "w").close()
    path = folder.encode() + b"/f"
    result["openat"] = each(count, lambda: C.openat(-100, path, 0), after=lambda fd: os.close(fd))
elif sys.argv[3] == "alone":
    result["empty"] = each(count, nothing)
    result["alone"] = each(count, lambda: C.getpgid(0))
print(json.dumps(result))
"""  # noqa: E501 - a program


def _policy(*, escalating: bool) -> SandboxPolicy:
    calls = ("getpgid", "getsid", "connect", "openat")
    rules = (CallRule(names=calls, action=CallAction.ESCALATE),) if escalating else ()
    return SandboxPolicy(
        name="bench",
        syscalls=SyscallPolicy(rules=rules),
        escalations=(
            EscalationRule(names=("getsid",), decision=Decision.DENY),
            EscalationRule(names=("getpgid", "openat", "connect"), decision=Decision.ALLOW),
        ),
        filesystem="read-write",
    )


def _run(spawner: Spawner, client: SupervisorClient | None, policy: SandboxPolicy, count: int, kind: str) -> Any:
    def prepared(box: Sandbox) -> None:
        if client is not None:
            assert client.attach(box.folder)

    spec = LaunchSpec(
        agent=f"bench-{kind}",
        command=(sys.executable, "-c", PROGRAM, str(count), "/tmp", kind),
        policy="bench",
        policy_version=1,
        policy_text="",
    )
    launched = spawner.launch(spec, policy, secrets={}, prepared=prepared)
    assert launched.wait(300) == 0, Path(launched.record.folder, "output.log").read_text()
    launched.close()
    found = json.loads(Path(launched.record.folder, "output.log").read_text())
    assert inventory.remove(launched.record)
    return found


def _supervisor(state: Path) -> tuple[subprocess.Popen[bytes], SupervisorClient]:
    process = subprocess.Popen([sys.executable, "-m", "clawback.enforcement.supervise", str(state)])
    client = SupervisorClient(state)
    deadline = time.monotonic() + 15
    while True:
        try:
            client.status()
            return process, client
        except Unreachable:
            assert time.monotonic() < deadline
            time.sleep(0.01)


def measure(n: int) -> dict[str, dict[str, Metric] | dict[str, float] | list[str]]:
    """Ordinary calls in ns (50 batches of 5,000), escalated ones in µs, 10 n of each."""
    count = 10 * n
    bare_output = subprocess.run(
        [sys.executable, "-c", PROGRAM, "0", "/tmp", "bare"], capture_output=True, check=True
    ).stdout
    bare = json.loads(bare_output)
    state = Path(tempfile.mkdtemp(prefix="cb-", dir="/tmp"))
    with Spawner.start(
        state, cgroup=f"clawback-bench-{secrets.token_hex(4)}", uid_base=uid_base(), spares=0
    ) as spawner:
        plain = _run(spawner, None, _policy(escalating=False), 0, "plain")
        process, client = _supervisor(state)
        try:
            full = _run(spawner, client, _policy(escalating=True), count, "escalated")
        finally:
            process.terminate()
            process.wait(10)
        # Without a supervisor only what needs no openat can run: the loader would be refused.
        lone = SandboxPolicy(
            name="bench", syscalls=SyscallPolicy(rules=(CallRule(names=("getpgid",), action=CallAction.ESCALATE),))
        )
        alone = _run(spawner, None, lone, count, "alone")
    shutil.rmtree(state, ignore_errors=True)
    metrics: dict[str, Metric] = {}
    for name, found in (("bare", bare), ("filtered", plain), ("filtered, escalating", full)):
        loop = min(found["loop"])
        for call in ("ordinary getppid", "ordinary geteuid"):
            metrics[f"escalate {call}, {name}"] = metric([value - loop for value in found[call]], "ns")
    empty = min(full["empty"])
    for call in ("let go", "refused", "connect", "openat"):
        metrics[f"escalate {call}"] = metric([(value - empty) / 1e3 for value in full[call]], "us")
    metrics["escalate alone"] = metric([(value - min(alone["empty"])) / 1e3 for value in alone["alone"]], "us")
    added = max(min(full[f"ordinary {c}"]) - min(bare[f"ordinary {c}"]) for c in ("getppid", "geteuid"))
    note = f"filters add {added:.0f} ns to an ordinary system call (fastest of 50 batches with, less fastest without)"
    return {"metrics": metrics, "ratios": {}, "notes": [note]}
