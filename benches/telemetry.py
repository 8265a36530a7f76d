"""From a denied call to its line in the telemetry file: alone, and while another agent denies at full rate.

Twenty agents each deny a call every tenth of a second and pass the time at which they do it as its first argument, so
that the event itself says when it happened. The line's time is when a reader that looks five thousand times a second
first sees it. One agent more floods; at the same time an idle one is frozen and released over the core's socket. The
tracer that reads the argument is on all the while: a call more expensive than all that is measured here.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benches.statistics import Metric, metric
from clawback.enforcement.core.client import CoreClient
from clawback.enforcement.kernel import cgroups
from clawback.enforcement.sandbox import inventory
from clawback.errors import Unreachable
from clawback.model import KernelActivity, LaunchSpec, Level
from clawback.model.ocsf import parse_line
from clawback.urgency import go_first

__all__ = ["measure"]

_AGENTS = 20
_GROUP = f"clawback-bench-telemetry-{os.getpid()}"
_UID_BASE = 2_000_000_000
_QUIET = """
import ctypes, time
call = ctypes.CDLL(None).syscall
while True:
    call(ctypes.c_long(163), ctypes.c_ulong(time.time_ns()), 0, 0)
    time.sleep(0.1)
"""
_LOUD = """
import ctypes
call = ctypes.PyDLL(None).syscall
while True:
    call(167, 0, 0)
"""
_IDLE = "import time; time.sleep(3600)"
_POLICY = """\
apiVersion: openshell.nvidia.com/v1
kind: SandboxPolicy
metadata: {name: bench}
spec:
  isolation: {network: restricted}
"""
_LOOK_SECONDS = 0.0002
_SETTLE_SECONDS = 1.5


class _Reader:
    """New events, each with the time at which its line was first seen."""

    def __init__(self, path: Path) -> None:
        self._descriptor = os.open(path, os.O_RDONLY)
        self._rest = b""

    def read(self) -> Iterator[tuple[int, KernelActivity]]:
        """Those since the last time; lines of other classes are passed over."""
        data = os.read(self._descriptor, 1 << 22)
        now = time.time_ns()
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            if b'"class_uid":1003' in line:
                event = parse_line(line, None)
                assert isinstance(event, KernelActivity)
                yield now, event

    def latencies(self, count: int) -> tuple[list[float], int]:
        """Of so many events of quiet agents, in milliseconds; and how many of the others came meanwhile."""
        times: list[float] = []
        others = 0
        while len(times) < count:
            for now, event in self.read():
                if not event.agent.startswith("quiet"):
                    others += 1
                elif event.arguments:
                    times.append((now - event.arguments[0]) / 1e6)
            time.sleep(_LOOK_SECONDS)
        return times, others


def _launch(core: CoreClient, agent: str, code: str) -> None:
    spec = LaunchSpec(
        agent=agent,
        command=("/usr/bin/python3", "-c", code),
        policy="bench",
        policy_version=1,
        policy_text=_POLICY,
    )
    null = os.open("/dev/null", os.O_RDWR)
    try:
        core.launch(spec, stdio=(null, null, null))
    finally:
        os.close(null)


@contextlib.contextmanager
def _core(state: Path) -> Iterator[tuple[CoreClient, int]]:
    code = (
        "from pathlib import Path; from clawback.enforcement.core.main import serve\n"
        f"serve(Path({str(state)!r}), cgroup={_GROUP!r}, uid_base={_UID_BASE}, heartbeat_seconds=1.0)"
    )
    with (state / "core.log").open("wb") as log:
        process = subprocess.Popen([sys.executable, "-c", code], stdout=log, stderr=log)
    client = CoreClient(state / "run" / "core.sock", timeout=30.0)
    try:
        while True:
            assert process.poll() is None, (state / "core.log").read_text()[-2000:]
            with contextlib.suppress(Unreachable):
                client.health()
                break
            time.sleep(0.02)
        yield client, process.pid
    finally:
        records, _ = inventory.read_all(state)
        for record in records:
            if inventory.is_process(record.pid, record.start_ticks):
                os.kill(record.pid, signal.SIGKILL)
        process.terminate()
        process.wait(30)
        roots = cgroups.discover()
        for record in records:
            inventory.remove(record)
        cgroups.remove_parent(roots, _GROUP)


def _freezes(core: CoreClient, count: int) -> list[float]:
    times = []
    for _ in range(count):
        began = time.perf_counter()
        core.contain("idle", Level.FREEZE, reason="bench", by="bench")
        times.append((time.perf_counter() - began) * 1e3)
        core.release("idle", reason="bench", by="another")
        time.sleep(0.005)
    return times


def _resident(pid: int) -> float:
    found = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert found is not None
    return int(found[1]) / 1024


def _denied(core: CoreClient) -> int:
    found = re.search(r"^clawback_telemetry_lost_total (\S+)$", core.metrics(), re.MULTILINE)
    return int(float(found[1])) if found else 0


def measure(n: int = 100) -> dict[str, Any]:
    """`{"metrics": {NAME: {p50, p99, n, unit}}, "notes": [...]}`. Needs root."""
    if os.geteuid() != 0:
        return {"metrics": {}, "notes": ["telemetry: needs root"]}
    go_first()  # as watch does, who reads these lines when it matters
    state = Path(tempfile.mkdtemp(prefix="clawback-bench-"))
    metrics: dict[str, Metric] = {}
    try:
        with _core(state) as (core, pid):
            for number in range(_AGENTS):
                _launch(core, f"quiet-{number}", _QUIET)
            _launch(core, "idle", _IDLE)
            reader = _Reader(state / "telemetry" / "sandbox.jsonl")
            time.sleep(_SETTLE_SECONDS)
            list(reader.read())
            metrics["denial_to_file_alone"] = metric(reader.latencies(10 * n)[0], "ms")
            metrics["freeze_alone"] = metric(_freezes(core, n), "ms")
            before = _resident(pid)
            _launch(core, "loud", _LOUD)
            time.sleep(_SETTLE_SECONDS)
            list(reader.read())
            began, lost = time.monotonic(), _denied(core)
            times, written = reader.latencies(10 * n)
            lasted = time.monotonic() - began
            metrics["denial_to_file_in_flood"] = metric(times, "ms")
            refused = _denied(core) - lost
            metrics["freeze_in_flood"] = metric(_freezes(core, n), "ms")
            metrics["flood_denied"] = metric([refused / lasted], "1/s")
            metrics["flood_written"] = metric([written / lasted], "1/s")
            metrics["flood_memory_growth"] = metric([_resident(pid) - before], "MiB")
    finally:
        shutil.rmtree(state, ignore_errors=True)
    return {"metrics": metrics, "notes": []}


if __name__ == "__main__":
    print(json.dumps(measure(int(sys.argv[1]) if len(sys.argv) > 1 else 100), indent=2))
