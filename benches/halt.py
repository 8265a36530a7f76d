"""Halting all agents at once: 10, 100 and 1,000 of one program each, started by a real core, halted over its socket.

Four times of each halt, in milliseconds from the order: until the kernel was told to freeze the last leaf, until the
order was on disk, until every leaf had been read back as frozen, and until the caller had the answer.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benches.statistics import metric
from clawback.enforcement.core.client import CoreClient
from clawback.enforcement.sandbox import inventory
from clawback.errors import Unreachable
from clawback.model import AgentState, Enforcement, HaltReport, LaunchSpec, Level, Selector, SelectorKind

__all__ = ["measure"]

_SIZES = (10, 100, 1000)
_POLICY = """\
apiVersion: openshell.nvidia.com/v1
kind: SandboxPolicy
metadata: {name: bench}
spec:
  isolation: {network: none}
"""
_ALL = Selector(kind=SelectorKind.ALL)


def measure(n: int) -> dict[str, Any]:
    """`n` halts of each size, at most 20; as root. The sizes can be cut short by CLAWBACK_BENCH_AGENTS."""
    if os.geteuid() != 0:
        return {"notes": ["halt: needs root"]}
    most = int(os.environ.get("CLAWBACK_BENCH_AGENTS", "1000"))
    metrics: dict[str, Any] = {}
    with _core() as (client, _state):
        there = 0
        for size in (one for one in _SIZES if one <= most):
            for number in range(there, size):
                client.launch(
                    LaunchSpec(
                        agent=f"bench-{number}",
                        command=("/usr/bin/sleep", "3600"),
                        policy="bench",
                        policy_version=1,
                        policy_text=_POLICY,
                    )
                )
            there = size
            rounds = [_round(client, size) for _ in range(min(n, 20))]
            for index, name in enumerate(("struck", "durable", "verified", "answered")):
                metrics[f"halt_all_{size}_{name}"] = metric([one[index] for one in rounds], "ms")
    return {"metrics": metrics}


def _round(client: CoreClient, size: int) -> tuple[float, float, float, float]:
    began = time.perf_counter()
    report: HaltReport = client.halt(_ALL, Level.FREEZE, reason="a bench", by="bench")
    answered = (time.perf_counter() - began) * 1e3
    assert len(report.agents) == size
    assert all(one.results[0].enforcement is Enforcement.FULL for one in report.agents)
    lifted = client.lift(report.halt.id, reason="a bench", by="bench")
    assert all(one.results[0].enforcement is Enforcement.NONE for one in lifted)
    return report.struck_ms, report.durable_ms, report.verified_ms, answered


@contextlib.contextmanager
def _core() -> Iterator[tuple[CoreClient, Path]]:
    state = Path(tempfile.mkdtemp(prefix="cb-", dir="/tmp"))
    state.chmod(0o755)
    group = f"clawback-bench-{secrets.token_hex(4)}"
    code = (
        "import sys; from pathlib import Path; from clawback.enforcement.core.main import serve\n"
        f"serve(Path({str(state)!r}), cgroup={group!r}, uid_base=2_400_000)"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    client = CoreClient(state / "run" / "core.sock", timeout=120.0)
    try:
        for _ in range(1000):
            try:
                client.health()
                break
            except Unreachable:
                time.sleep(0.02)
        yield client, state
    finally:
        _end(process, state)
        shutil.rmtree(state, ignore_errors=True)


def _end(process: subprocess.Popen[bytes], state: Path) -> None:
    records, _ = inventory.read_all(state)
    for record in records:
        if inventory.is_process(record.pid, record.start_ticks):
            os.kill(record.pid, signal.SIGKILL)
        with contextlib.suppress(OSError):  # gone, or going
            Path(record.cgroup, "cgroup.freeze").write_text("0")
    end = time.monotonic() + 120
    for record in records:
        while inventory.state(record) is AgentState.RUNNING and time.monotonic() < end:
            time.sleep(0.01)
        inventory.remove(record)
    process.terminate()
    process.wait(30)
