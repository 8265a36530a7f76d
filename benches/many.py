"""Up to 1,000 sandboxes at once under one core: starting, memory, halting all together, ending.

Each runs `sleep`. They are started over the core's socket by two callers; then, at 1, 10, 100 and 1,000 of them, memory
is read and all are halted and let go a few times. Four times of each halt, in ms from the order: until the
kernel was told to freeze the last leaf (`struck`), until the order was on disk (`durable`), until every leaf had been
read back as frozen (`verified`), until the caller had the answer (`answered`); and the whole of letting go (`lifted`).

Memory, for each sandbox: `pss`, of the shim and the sandbox's first process (/proc/PID/smaps_rollup), and `program`,
of what runs in it; `kernel`, by how much slabs, kernel stacks, page tables and per-processor memory grew
(/proc/meminfo: of the whole machine, so for 100 and more only); `core`, by how much the core and its spawner grew
(PSS); `host`, by how much less was available (MemAvailable), all of it and the cache of the files written.
"""

from __future__ import annotations

import os
import re
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from benches.peers import Unable
from benches.running import RunningCore, core
from benches.statistics import Metric, metric
from clawback.enforcement.sandbox import inventory
from clawback.enforcement.sandbox.record import Sandbox
from clawback.model import AgentState, Enforcement, HaltReport, LaunchSpec, Level, Selector, SelectorKind

__all__ = ["RUNS", "measure"]

RUNS = (20, 3)
_SIZES = (1, 10, 100, 1000)
_QUICK_SIZES = (1, 10, 100)
_CALLERS = 2
_POLICY = """\
apiVersion: openshell.nvidia.com/v1
kind: SandboxPolicy
metadata: {name: bench}
spec:
  isolation: {network: none}
"""
_ALL = Selector(kind=SelectorKind.ALL)
_KERNEL = ("Slab", "KernelStack", "PageTables", "SecPageTables", "Percpu")
_TIMES = ("struck", "durable", "verified", "answered", "lifted")
_ENOUGH = 100
_SECONDS = 120.0


def measure(n: int) -> dict[str, Any]:
    """`n` halts of each size. As root. The largest is 1,000, with less than ten runs 100, or CLAWBACK_BENCH_AGENTS."""
    if os.geteuid() != 0:
        raise Unable("needs root")
    most = int(os.environ.get("CLAWBACK_BENCH_AGENTS", str(_SIZES[-1] if n >= RUNS[0] // 2 else _QUICK_SIZES[-1])))
    metrics: dict[str, Metric] = {}
    with core() as running:
        before = (_kernel(), _own(running), _available())
        there = 0
        for size in (one for one in _SIZES if one <= most):
            began = time.perf_counter()
            with ThreadPoolExecutor(_CALLERS) as pool:
                starts = list(pool.map(lambda number: _start(running, number), range(there, size)))
            took = (time.perf_counter() - began) * 1e3
            if size >= _ENOUGH:
                metrics[f"start_{there}_to_{size}"] = metric(starts, "ms")
                metrics[f"start_{there}_to_{size}_all"] = metric([took], "ms")
            there = size
            metrics |= _memory(running, size, before)
            rounds = [_halt(running, size) for _ in range(n)]
            for index, name in enumerate(_TIMES):
                metrics[f"halt_all_{size}_{name}"] = metric([one[index] for one in rounds], "ms")
        metrics[f"end_{there}_all"] = metric([_end(running, there)], "ms")
    return {"metrics": metrics, "notes": [f"many: nothing was left of {there} sandboxes: no process, no cgroup"]}


def _start(running: RunningCore, number: int) -> float:
    spec = LaunchSpec(
        agent=f"bench-{number}",
        command=("/usr/bin/sleep", "3600"),
        policy="bench",
        policy_version=1,
        policy_text=_POLICY,
    )
    began = time.perf_counter()
    running.client.launch(spec)
    return (time.perf_counter() - began) * 1e3


def _halt(running: RunningCore, size: int) -> tuple[float, ...]:
    began = time.perf_counter()
    report: HaltReport = running.client.halt(_ALL, Level.FREEZE, reason="a bench", by="bench")
    answered = (time.perf_counter() - began) * 1e3
    assert len(report.agents) == size, len(report.agents)
    assert all(one.results[0].enforcement is Enforcement.FULL for one in report.agents)
    began = time.perf_counter()
    lifted = running.client.lift(report.halt.id, reason="a bench", by="bench")
    elapsed = (time.perf_counter() - began) * 1e3
    assert all(one.results[0].enforcement is Enforcement.NONE for one in lifted)
    return report.struck_ms, report.durable_ms, report.verified_ms, answered, elapsed


def _end(running: RunningCore, size: int) -> float:
    """Kill the first process of each; ms until the core calls every one of them ended."""
    records, problems = inventory.read_all(running.state)
    assert len(records) == size, problems
    began = time.perf_counter()
    for record in records:
        os.kill(record.pid, signal.SIGKILL)
    deadline = time.monotonic() + _SECONDS
    while any(one.state is AgentState.RUNNING for one in running.client.agents()):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return (time.perf_counter() - began) * 1e3


def _memory(running: RunningCore, size: int, before: tuple[float, float, float]) -> dict[str, Metric]:
    records, _ = inventory.read_all(running.state)
    values = {
        "pss": metric([_pss(record.pid) + _pss(record.shim_pid) for record in records], "KiB"),
        "program": metric([sum(map(_pss, _children(record))) for record in records], "KiB"),
    }
    if size >= _ENOUGH:
        values["kernel"] = metric([(_kernel() - before[0]) / size], "KiB")
        values["core"] = metric([(_own(running) - before[1]) / size], "KiB")
        values["host"] = metric([(before[2] - _available()) / size], "KiB")
    return {f"idle_{size}_{name}": value for name, value in values.items()}


def _children(record: Sandbox) -> list[int]:
    return [int(pid) for pid in Path(f"/proc/{record.pid}/task/{record.pid}/children").read_text().split()]


def _pss(pid: int) -> int:
    found = re.search(r"^Pss:\s+(\d+) kB", Path(f"/proc/{pid}/smaps_rollup").read_text(), re.MULTILINE)
    return int(found[1]) if found else 0


def _meminfo() -> dict[str, int]:
    """In KiB."""
    lines = (line.split() for line in Path("/proc/meminfo").read_text().splitlines())
    return {words[0].rstrip(":"): int(words[1]) for words in lines}


def _kernel() -> float:
    found = _meminfo()
    return float(sum(found.get(name, 0) for name in _KERNEL))


def _available() -> float:
    return float(_meminfo()["MemAvailable"])


def _own(running: RunningCore) -> float:
    """KiB of the core and what it started and did not let go of: its spawner and its supervisor."""
    below = Path(f"/proc/{running.pid}/task")
    children = {int(pid) for task in below.iterdir() for pid in (task / "children").read_text().split()}
    return float(sum(map(_pss, (running.pid, *children))))
