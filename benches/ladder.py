"""Each level of the quarantine applied and verified, and released, on agents of 1, 10 and 100 processes.

Times are from the order to the result that was read back, with the helper that a running core has (a spawner's), and
without what the core does about it: the hold's flush to disk, the event. Fresh agents each round; `n` is in each row.
The processes sleep; the agent is thawed when it is isolated, restricted and sealed, as one that is watched would be.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from benches.running import uid_base
from benches.statistics import metric
from clawback.enforcement.kernel.syscalls import NUMBER
from clawback.enforcement.policy.types import SandboxPolicy
from clawback.enforcement.quarantine import ladder, tree
from clawback.enforcement.sandbox.inventory import remove
from clawback.enforcement.sandbox.record import Sandbox
from clawback.enforcement.sandbox.spawner import Spawner
from clawback.model import LaunchSpec, Level, LevelResult

__all__ = ["RUNS", "measure"]

RUNS = (50, 3)
_POLICY = SandboxPolicy(name="bench", max_processes=None)
_SIZES = (1, 10, 100)
_SECONDS = 20.0
_SLEEPING = f"{NUMBER['clock_nanosleep']} "


def _command(processes: int) -> tuple[str, ...]:
    more = "sleep 1000 & " * (processes - 1)
    return ("/bin/sh", "-c", f"{more}exec sleep 1000")


def _settled(box: Sandbox, processes: int) -> None:
    """Wait until all of them sleep: one that is still loading could not, once nothing opens."""
    end = time.monotonic() + _SECONDS
    while (asleep := sum(map(_asleep, tree.processes(box)))) != processes:
        if time.monotonic() > end:
            raise TimeoutError(f"{asleep} of {processes} processes sleep")
        time.sleep(0.002)


def _asleep(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/syscall").read_text().startswith(_SLEEPING)
    except (FileNotFoundError, ProcessLookupError):
        return False


def _round(spawner: Spawner, agent: str, processes: int) -> dict[str, tuple[float, bool]]:
    """Milliseconds of each step, and whether it came out in full."""
    spec = LaunchSpec(agent=agent, command=_command(processes), policy="bench", policy_version=1, policy_text="")
    launched = spawner.launch(spec, _POLICY, secrets={"token": "value"})
    box = launched.record
    try:
        _settled(box, processes)
        steps: list[tuple[str, Callable[[], LevelResult]]] = []
        for level in (Level.FREEZE, Level.ISOLATE, Level.RESTRICT):
            steps.append((level.word, partial(ladder.apply, box, level, run=spawner.run)))
            steps.append((f"{level.word}_probe", partial(ladder.probe, box, level, run=spawner.run)))
            steps.append((f"{level.word}_release", partial(ladder.release, box, level, run=spawner.run)))
        steps += [
            (level.word, partial(ladder.apply, box, level, run=spawner.run)) for level in (Level.SEAL, Level.STOP)
        ]
        return {name: _timed(step, undone=name.endswith("_release")) for name, step in steps}
    finally:
        ladder.apply(box, Level.STOP)
        launched.wait(10)
        launched.close()
        remove(box)


def _timed(step: Callable[[], LevelResult], *, undone: bool) -> tuple[float, bool]:
    began = time.perf_counter()
    result = step()
    elapsed = (time.perf_counter() - began) * 1e3
    return elapsed, result.enforcement.value == ("none" if undone else "full")


def measure(n: int = 100) -> dict[str, Any]:
    """`ladder_LEVEL_PROCESSES` and its `_release` and `_probe`, in ms; a note for each that was not in full."""
    times: defaultdict[str, list[float]] = defaultdict(list)
    short: defaultdict[str, int] = defaultdict(int)
    with (
        tempfile.TemporaryDirectory(prefix="clawback-bench-") as folder,
        Spawner.start(Path(folder), cgroup=f"clawback-bench-{os.getpid()}", uid_base=uid_base(), spares=1) as spawner,
    ):
        for processes in _SIZES:
            rounds = n if processes < max(_SIZES) else max(1, n // 4)
            for number in range(rounds + 1):
                seen = _round(spawner, f"agent-{processes}-{number}", processes)
                for name, (elapsed, full) in seen.items():
                    if number:  # the first is for warming up
                        times[f"ladder_{name}_{processes}"].append(elapsed)
                        short[f"ladder_{name}_{processes}"] += not full
    notes = [f"{name}: {count} of {len(times[name])} not in full" for name, count in short.items() if count]
    return {"metrics": {name: metric(values, "ms") for name, values in times.items()}, "notes": notes}
