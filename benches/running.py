"""A real core of a bench's own: its state, cgroup and user ids are nobody else's, and nothing of it stays."""

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
from dataclasses import dataclass
from pathlib import Path

from clawback.enforcement.core.client import CoreClient
from clawback.enforcement.kernel import cgroups
from clawback.enforcement.sandbox import inventory
from clawback.errors import Unreachable
from clawback.model import AgentState

__all__ = ["RunningCore", "core", "left", "uid_base"]

_BLOCK, _BLOCKS = 65_536, 16_000
_LOWEST = 1_000_000_000
_UP_SECONDS, _DOWN_SECONDS = 30.0, 60.0


@dataclass(frozen=True, slots=True)
class RunningCore:
    """`pid` is its process, `uid_base` the first user id that its agents get."""

    client: CoreClient
    pid: int
    state: Path
    group: str
    uid_base: int


def uid_base() -> int:
    """The first of 65,536 user ids that no core which runs beside is likely to use."""
    return _LOWEST + _BLOCK * secrets.randbelow(_BLOCKS)


@contextlib.contextmanager
def core(**options: object) -> Iterator[RunningCore]:
    """Up when it answers; `options` are those of `clawback.enforcement.core.main.serve`. At the end its agents are
    killed, and `RuntimeError` says what is left of them all the same.
    """
    state = Path(tempfile.mkdtemp(prefix="cb-", dir="/tmp"))
    state.chmod(0o755)
    group, base = f"clawback-bench-{secrets.token_hex(4)}", uid_base()
    options = {"cgroup": group, "uid_base": base} | options
    code = (
        "from pathlib import Path; from clawback.enforcement.core.main import serve\n"
        f"serve(Path({str(state)!r}), **{options!r})"
    )
    with (state / "core.log").open("wb") as log:
        process = subprocess.Popen([sys.executable, "-c", code], stdout=log, stderr=log)
    client = CoreClient(state / "run" / "core.sock", timeout=120.0)
    try:
        _up(client, process, state)
        yield RunningCore(client, process.pid, state, group, base)
    finally:
        end(process, state, group)
        problems = left(base, group)
        shutil.rmtree(state, ignore_errors=True)
    if problems:
        raise RuntimeError(f"left behind: {problems}")


def _up(client: CoreClient, process: subprocess.Popen[bytes], state: Path) -> None:
    deadline = time.monotonic() + _UP_SECONDS
    while True:
        with contextlib.suppress(Unreachable):
            client.health()
            return
        if process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"the core does not start: {(state / 'core.log').read_text()[-300:]}")
        time.sleep(0.02)


def end(process: subprocess.Popen[bytes], state: Path, group: str) -> None:
    """Kill and thaw all its agents, wait until they are gone, end the core, take away the groups."""
    records, _ = inventory.read_all(state)
    for record in records:
        if inventory.is_process(record.pid, record.start_ticks):
            os.kill(record.pid, signal.SIGKILL)
        with contextlib.suppress(OSError):  # gone, or going
            Path(record.cgroup, "cgroup.freeze").write_text("0")
    deadline = time.monotonic() + _DOWN_SECONDS
    for record in records:
        while inventory.state(record) is AgentState.RUNNING and time.monotonic() < deadline:
            time.sleep(0.01)
    process.terminate()
    process.wait(30)
    for record in records:
        inventory.remove(record)
    cgroups.remove_parent(cgroups.discover(), group)


def left(base: int, group: str) -> str:
    """What still shows of a core's agents: processes by their user ids, groups by the name; empty if nothing."""
    found = []
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            if entry.name.isdigit() and base <= entry.stat().st_uid < base + _BLOCK:
                found.append(f"process {entry.name}")
    found += [f"group {path}" for path in Path("/sys/fs/cgroup").glob(f"**/{group}*")]
    return ", ".join(found[:5]) + (f" and {len(found) - 5} more" if len(found) > 5 else "")
