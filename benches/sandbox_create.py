"""Creating a sandbox, against bubblewrap with the same isolation, alternating in one run; what an idle one costs.

Four ways are timed, each from the request to the end of `true` inside: a command handed to a waiting spare, a sandbox
made from nothing by the compiled shim, the same in Python, and `bwrap`. A spare is waited for before each round, so
that its making burdens none of them; what it costs is what the second way costs.

Memory is the sum of PSS (/proc/PID/smaps_rollup) over the shim and the first process, without the program's own, for
each of so many sandboxes that run `sleep`; `host` is what MemAvailable lost (/proc/meminfo: of the whole machine, so it
means something on a quiet one only), program and kernel included.

The end that we wait for is the later one: we say how a command ended when every process of its sandbox is gone and that
is on disk; `bwrap` says it as soon as the command has, and its process 1 ends afterwards, outside the time measured.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from clawback.enforcement import native
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


@contextmanager
def _spawner(way: str, *, spares: int) -> Iterator[Spawner]:
    before = os.environ.get(native.VARIABLE)
    os.environ[native.VARIABLE] = way
    try:
        with tempfile.TemporaryDirectory(prefix="clawback-bench-") as folder:
            group = f"clawback-bench-{way}-{os.getpid()}"
            with Spawner.start(Path(folder), cgroup=group, spares=spares) as spawner:
                yield spawner
    finally:
        if before is None:
            del os.environ[native.VARIABLE]
        else:
            os.environ[native.VARIABLE] = before


def _pss(pid: int) -> int:
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Pss:"))


def _available() -> int:
    lines = Path("/proc/meminfo").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable:"))


def _memory(way: str, count: int) -> dict[str, dict[str, Any]]:
    """KiB for each of `count` idle sandboxes, and ms for starting each of them, one after the other."""
    command = ("/usr/bin/sleep", "3600")
    with _spawner(way, spares=0) as spawner:
        before, began = _available(), time.perf_counter()
        running = []
        try:
            for number in range(count):
                spec = replace(_spec(f"agent-{number}"), command=command)
                running.append(spawner.launch(spec, _POLICY, secrets={}))
            took = (time.perf_counter() - began) * 1e3 / count
            pss = sum(_pss(one.record.pid) + _pss(one.record.shim_pid) for one in running) / count
            host = (before - _available()) / count
        finally:
            for one in running:
                os.kill(one.record.pid, signal.SIGKILL)
            for one in running:
                one.wait(60)
                one.close()
                assert remove(one.record)
    name = f"sandbox_idle_{way}_{count}"
    return {
        f"{name}_pss": {"p50": round(pss, 1), "p99": round(pss, 1), "n": count, "unit": "KiB"},
        f"{name}_host": {"p50": round(host, 1), "p99": round(host, 1), "n": count, "unit": "KiB"},
        f"{name}_start": {"p50": round(took, 3), "p99": round(took, 3), "n": count, "unit": "ms"},
    }


def measure(n: int = 100, *, many: int = 100) -> dict[str, Any]:
    """`{"metrics": {NAME: {p50, p99, n, unit}}, "ratios": {...}, "notes": [...]}`; no ratio where bwrap is absent.

    `many` sandboxes run at once for the memory of each; the means of that stand under p50 and p99 alike.
    """
    has_bwrap = shutil.which("bwrap") is not None
    notes = [] if has_bwrap else ["bwrap is not installed: nothing to compare with"]
    compiled = native.way().program is not None
    if not compiled:
        notes.append(native.way().why)
    first = "native" if compiled else "python"
    times: dict[str, list[float]] = {
        "sandbox_create": [], "sandbox_create_cold": [], "sandbox_create_python": [], "bwrap_create": [],
    }  # fmt: skip
    with _spawner(first, spares=1) as spawner, _spawner("python", spares=0) as slow:
        ways: list[tuple[str, Callable[[int], float]]] = [
            ("sandbox_create", lambda number: _launch(spawner, f"agent-{number}")),
            # The agent's second launch needs the user id of its first: no spare has it.
            ("sandbox_create_cold", lambda number: _launch(spawner, f"agent-{number}")),
        ]
        if compiled:
            ways.append(("sandbox_create_python", lambda number: _launch(slow, f"agent-{number}")))
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
    for count in (1, many):
        metrics |= _memory(first, count)
    ratios = {}
    if has_bwrap:
        base = metrics["bwrap_create"]["p50"]
        ratios = {
            f"{name}_vs_bwrap": round(metrics[name]["p50"] / base, 3)
            for name in ("sandbox_create", "sandbox_create_cold", "sandbox_create_python")
            if name in metrics
        }
    return {"metrics": metrics, "ratios": ratios, "notes": notes}


if __name__ == "__main__":
    print(json.dumps(measure(int(sys.argv[1]) if len(sys.argv) > 1 else 100), indent=2))
