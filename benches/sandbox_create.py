"""Creating a sandbox, against bubblewrap with the same isolation, interleaved in the same run.

Three ways are timed, each from the request to the end of `true` inside: a command handed to a waiting spare, a sandbox
made from nothing, and `bwrap`. A spare is waited for before each round, so that its making burdens none of the three;
what it costs is what the second way costs.

The end that we wait for is the later one: we say how a command ended when every process of its sandbox is gone and that
is on disk; `bwrap` says it as soon as the command has, and its process 1 ends afterwards, outside the time measured.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from clawback.enforcement.policy.calls import SyscallPolicy
from clawback.enforcement.policy.types import SandboxPolicy
from clawback.enforcement.sandbox.filters import programs
from clawback.enforcement.sandbox.interpreter import BASE
from clawback.enforcement.sandbox.inventory import remove
from clawback.enforcement.sandbox.spawner import Spawner
from clawback.model import LaunchSpec

__all__ = ["measure"]

_POLICY = SandboxPolicy(name="bench", max_processes=None)
_SETTLE = 0.06


def _spec(agent: str) -> LaunchSpec:
    return LaunchSpec(agent=agent, command=("/usr/bin/true",), policy="bench", policy_version=1, policy_text="")


def _launch(spawner: Spawner, agent: str) -> float:
    began = time.perf_counter()
    launched = spawner.launch(_spec(agent), _POLICY, secrets={})
    status = launched.wait(10)
    elapsed = (time.perf_counter() - began) * 1e3
    launched.close()
    assert status == 0
    assert remove(launched.record)
    return elapsed


def _bwrap_arguments(filters: list[int]) -> list[str]:
    """The same seven namespaces, tree, ids, capabilities and seccomp programs."""
    arguments = ["bwrap", "--unshare-all", "--unshare-user", "--uid", "1000", "--gid", "1000", "--hostname", "sandbox"]
    for path in map(Path, BASE):
        if path.is_symlink():
            arguments += ["--symlink", str(path.readlink()), str(path)]
        elif path.is_dir():
            arguments += ["--ro-bind", str(path), str(path)]
    for name in ("ld.so.cache", "ssl", "ca-certificates", "alternatives", "localtime"):
        if Path("/etc", name).exists():
            arguments += ["--ro-bind", f"/etc/{name}", f"/etc/{name}"]
    arguments += ["--proc", "/proc", "--dev", "/dev", "--tmpfs", "/tmp", "--tmpfs", "/run/secrets", "--dir", "/sys"]
    arguments += ["--cap-drop", "ALL", "--new-session", "--die-with-parent", "--remount-ro", "/"]
    for fd in filters:
        arguments += ["--add-seccomp-fd", str(fd)]
    return [*arguments, "/usr/bin/true"]


def _bwrap() -> float:
    fds = []
    for program in programs(SyscallPolicy()):
        fd = os.memfd_create("filter", 0)
        os.write(fd, program.code)
        os.lseek(fd, 0, os.SEEK_SET)
        fds.append(fd)
    arguments = _bwrap_arguments(fds)
    path = shutil.which("bwrap") or "bwrap"
    began = time.perf_counter()
    pid = os.posix_spawn(path, arguments, {"PATH": "/usr/bin:/bin"})
    _, status = os.waitpid(pid, 0)
    elapsed = (time.perf_counter() - began) * 1e3
    for fd in fds:
        os.close(fd)
    assert status == 0, status
    return elapsed


def _summary(values: list[float]) -> dict[str, Any]:
    ordered = sorted(values)
    return {
        "p50": round(statistics.median(ordered), 3),
        "p99": round(ordered[min(len(ordered) - 1, int(len(ordered) * 0.99))], 3),
        "n": len(ordered),
        "unit": "ms",
    }


def measure(n: int = 100) -> dict[str, Any]:
    """`{"metrics": {NAME: {p50, p99, n, unit}}, "ratios": {...}, "notes": [...]}`; no ratio where bwrap is absent."""
    has_bwrap = shutil.which("bwrap") is not None
    notes = [] if has_bwrap else ["bwrap is not installed: nothing to compare with"]
    times: dict[str, list[float]] = {"sandbox_create": [], "sandbox_create_cold": [], "bwrap_create": []}
    group = f"clawback-bench-{os.getpid()}"
    with (
        tempfile.TemporaryDirectory(prefix="clawback-bench-") as folder,
        Spawner.start(Path(folder), cgroup=group, spares=1) as spawner,
    ):
        ways: list[tuple[str, Callable[[int], float]]] = [
            ("sandbox_create", lambda number: _launch(spawner, f"agent-{number}")),
            # The agent's second launch needs the user id of its first: no spare has it.
            ("sandbox_create_cold", lambda number: _launch(spawner, f"agent-{number}")),
        ]
        if has_bwrap:
            ways.append(("bwrap_create", lambda _number: _bwrap()))
        for number in range(n + 3):
            for name, way in ways:
                spawner.settle()
                time.sleep(_SETTLE)
                elapsed = way(number)
                if number >= 3:  # the first rounds fill caches
                    times[name].append(elapsed)
    metrics = {name: _summary(values) for name, values in times.items() if values}
    ratios = {}
    if has_bwrap:
        base = metrics["bwrap_create"]["p50"]
        ratios = {
            "sandbox_create_vs_bwrap": round(metrics["sandbox_create"]["p50"] / base, 3),
            "sandbox_create_cold_vs_bwrap": round(metrics["sandbox_create_cold"]["p50"] / base, 3),
        }
    for point in ("unified", "", "pids", "memory", "cpu"):
        path = Path("/sys/fs/cgroup", point, group)
        if path.is_dir():
            path.rmdir()
    return {"metrics": metrics, "ratios": ratios, "notes": notes}


if __name__ == "__main__":
    print(json.dumps(measure(int(sys.argv[1]) if len(sys.argv) > 1 else 100), indent=2))
