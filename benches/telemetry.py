"""From a denied call to its line in the telemetry file: few, many, and while another agent denies at full rate.

Twenty agents each deny a call every tenth of a second and pass the time at which they do it as its first argument, so
that the event itself says when it happened. The line's time is when a reader that looks five thousand times a second
first sees it. Then ten agents more deny nearly as often as all of an agent's denials are written (`many`), then forty
(`most`: what can be written in a second; the rest is counted), and instead of them one that does nothing else
(`flood`); an idle one is frozen and released over the core's socket meanwhile. The tracer that reads the argument is on
all the while: a call more expensive than all that is measured here.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benches.peers import Unable
from benches.running import core as running_core
from benches.statistics import Metric, metric
from clawback.enforcement.core.client import CoreClient
from clawback.model import KernelActivity, LaunchSpec, Level
from clawback.model.ocsf import parse_line
from clawback.urgency import go_first

__all__ = ["RUNS", "measure"]

RUNS = (100, 20)
_AGENTS = 20
_STATES = (("many", 10), ("most", 40))
_DENYING = """
import ctypes, time
call = ctypes.CDLL(None).syscall
while True:
    call(ctypes.c_long(163), ctypes.c_ulong(time.time_ns()), 0, 0)
    time.sleep({pause})
"""
_QUIET = _DENYING.format(pause=0.1)
_BUSY = _DENYING.format(pause=1 / 95)  # 100 in a second are written of each agent
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
_DRAIN_SECONDS = 30.0
_WINDOW_SECONDS = 5.0
"""What the kernel was told not to send is counted once in a heartbeat, a second here: a window has several."""


class _Reader:
    """New events, each with the time at which its line was first seen."""

    def __init__(self, path: Path) -> None:
        self._descriptor = os.open(path, os.O_RDONLY)
        self._rest = b""

    def close(self) -> None:
        """No more."""
        os.close(self._descriptor)

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

    def latencies(self, count: int, seconds: float = 0.0) -> tuple[list[float], int]:
        """Of so many events of quiet agents or more, in milliseconds, over so many seconds or more; and how many of the
        others came meanwhile.
        """
        times: list[float] = []
        others, end = 0, time.monotonic() + seconds
        while len(times) < count or time.monotonic() < end:
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


def _lost(core: CoreClient) -> int:
    found = re.search(r"^clawback_telemetry_lost_total (\S+)$", core.metrics(), re.MULTILINE)
    return int(float(found[1])) if found else 0


def _drained(reader: _Reader) -> None:
    """Until nothing comes any more of those that were stopped."""
    end = time.monotonic() + _DRAIN_SECONDS
    while any(event.agent.startswith("busy") for _, event in reader.read()):
        assert time.monotonic() < end
        time.sleep(1.0)


def _window(core: CoreClient, reader: _Reader, count: int) -> tuple[list[float], float, float]:
    """Latencies of the quiet, events of the others that were written in a second, and events that were not."""
    time.sleep(_SETTLE_SECONDS)
    list(reader.read())
    began, lost = time.monotonic(), _lost(core)
    times, written = reader.latencies(count, _WINDOW_SECONDS)
    lasted = time.monotonic() - began
    return times, written / lasted, (_lost(core) - lost) / lasted


def measure(n: int) -> dict[str, Any]:
    """10 `n` events of the quiet in each state, `n` freezes."""
    if os.geteuid() != 0:
        raise Unable("needs root")
    go_first()  # as watch does, who reads these lines when it matters
    metrics: dict[str, Metric] = {}
    with running_core(heartbeat_seconds=1.0) as running:
        core = running.client
        for number in range(_AGENTS):
            _launch(core, f"quiet-{number}", _QUIET)
        _launch(core, "idle", _IDLE)
        reader = _Reader(running.state / "telemetry" / "sandbox.jsonl")
        try:
            times, _, _ = _window(core, reader, 10 * n)
            metrics["denial_to_file_alone"] = metric(times, "ms")
            metrics["freeze_alone"] = metric(_freezes(core, n), "ms")
            there = 0
            for name, count in _STATES:
                for number in range(there, count):
                    _launch(core, f"busy-{number}", _BUSY)
                there = count
                times, written, lost = _window(core, reader, min(10 * n, 200))
                metrics[f"denial_to_file_{name}"] = metric(times, "ms")
                metrics[f"{name}_written"] = metric([written + _AGENTS * 10], "1/s")
                metrics[f"{name}_lost"] = metric([lost], "1/s")
            for number in range(there):
                core.contain(f"busy-{number}", Level.STOP, reason="bench", by="bench")
            _drained(reader)
            before = _resident(running.pid)
            _launch(core, "loud", _LOUD)
            times, written, lost = _window(core, reader, 10 * n)
            metrics["denial_to_file_flood"] = metric(times, "ms")
            metrics["freeze_flood"] = metric(_freezes(core, n), "ms")
            metrics["flood_denied"] = metric([written + lost], "1/s")
            metrics["flood_written"] = metric([written], "1/s")
            metrics["flood_core_growth"] = metric([_resident(running.pid) - before], "MiB")
        finally:
            reader.close()
    return {"metrics": metrics}
