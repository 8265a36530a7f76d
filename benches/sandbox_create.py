"""Creating a sandbox beside bubblewrap, crun, runc and nsjail with like isolation, in turns.

Ours in three ways: a command handed to a waiting spare (`sandbox_create`), a sandbox made from nothing by the compiled
shim (`_cold`), the same in Python (`_python`). A spare is waited for before each round, so that its making burdens none
of them; what it costs is what the second way costs.

`_ready` is from the request until the program inside, `date +%s%N`, reads the clock: its own start is in all of them.
Without the word it is until the end was known. That is not the same everywhere: we say how a command ended when every
process of its sandbox is gone and that is on disk; `bwrap` says it as soon as the command has, and its process 1 ends
afterwards, outside the time measured. The others make no cgroup; we do.
"""

from __future__ import annotations

import os
import secrets
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from benches import peers
from benches.running import uid_base
from benches.statistics import metric
from clawback.enforcement import native
from clawback.enforcement.policy.types import SandboxPolicy
from clawback.enforcement.sandbox.inventory import remove
from clawback.enforcement.sandbox.spawner import Spawner
from clawback.model import LaunchSpec

__all__ = ["RUNS", "measure"]

RUNS = (100, 10)
_POLICY = SandboxPolicy(name="bench", max_processes=None)
_COMMAND = ("/usr/bin/date", "+%s%N")
_SETTLE = 0.06
_WARMING = 3

Way = Callable[[int], tuple[float, float]]
"""Makes one sandbox, number so and so; ms until the program ran, and until its end was known."""


def _launch(spawner: Spawner, agent: str) -> tuple[float, float]:
    spec = LaunchSpec(agent=agent, command=_COMMAND, policy="bench", policy_version=1, policy_text="")
    with _output() as (read, write), Path(os.devnull).open("r+b") as null:
        began_ns, began = time.time_ns(), time.perf_counter()
        launched = spawner.launch(spec, _POLICY, secrets={}, stdio=(null.fileno(), write, null.fileno()))
        status = launched.wait(10)
        elapsed = (time.perf_counter() - began) * 1e3
        launched.close()
        assert status == 0, status
        assert remove(launched.record)
        return (int(os.read(read, 100)) - began_ns) / 1e6, elapsed


def _peer(peer: peers.Peer) -> tuple[float, float]:
    with _output() as (read, write):
        run = peer.run(write)
        assert run.status == 0, run.status
        return (int(os.read(read, 100)) - run.began_ns) / 1e6, run.elapsed


@contextmanager
def _output() -> Iterator[tuple[int, int]]:
    ends = os.pipe()
    try:
        yield ends
    finally:
        for end in ends:
            os.close(end)


@contextmanager
def _spawner(way: str, *, spares: int) -> Iterator[Spawner]:
    before = os.environ.get(native.VARIABLE)
    os.environ[native.VARIABLE] = way
    try:
        with tempfile.TemporaryDirectory(prefix="clawback-bench-") as folder:
            group = f"clawback-bench-{secrets.token_hex(4)}"
            with Spawner.start(Path(folder), cgroup=group, uid_base=uid_base(), spares=spares) as spawner:
                yield spawner
    finally:
        if before is None:
            del os.environ[native.VARIABLE]
        else:
            os.environ[native.VARIABLE] = before


def measure(n: int) -> dict[str, Any]:
    """`{"metrics": {NAME: {p50, p99, n, unit}}, "ratios": {...}, "notes": [...]}`: `n` rounds of every way in turn."""
    notes = []
    compiled = native.way()
    with ExitStack() as stack:
        first = "native" if compiled.program is not None else "python"
        spawner = stack.enter_context(_spawner(first, spares=1))
        ways: dict[str, Way] = {
            "sandbox_create": lambda number: _launch(spawner, f"agent-{number}"),
            # The agent's second launch needs the user id of its first: no spare has it.
            "sandbox_create_cold": lambda number: _launch(spawner, f"agent-{number}"),
        }
        if compiled.program is not None:
            slow = stack.enter_context(_spawner("python", spares=0))
            ways["sandbox_create_python"] = lambda number: _launch(slow, f"agent-{number}")
        else:
            notes.append(compiled.why)
        for name in peers.NAMES:
            try:
                peer = stack.enter_context(peers.started(name, _COMMAND))
            except peers.Unable as why:
                notes.append(str(why))
            else:
                ways[f"{name}_create"] = lambda _number, peer=peer: _peer(peer)  # type: ignore[misc]  # bound now
        times: defaultdict[str, list[float]] = defaultdict(list)
        for number in range(n + _WARMING):
            for name, way in ways.items():
                spawner.settle()
                time.sleep(_SETTLE)
                ready, ended = way(number)
                if number >= _WARMING:  # the first rounds fill caches
                    times[name].append(ended)
                    times[f"{name}_ready"].append(ready)
    metrics = {name: metric(values, "ms") for name, values in times.items()}
    ours = [name for name in ways if name.startswith("sandbox_")]
    ratios = {
        f"{one}{what}_vs_{name}": round(metrics[one + what]["p50"] / metrics[f"{name}_create{what}"]["p50"], 3)
        for name in peers.NAMES
        if f"{name}_create" in ways
        for one in ours
        for what in ("", "_ready")
    }
    return {"metrics": metrics, "ratios": ratios, "notes": notes}
