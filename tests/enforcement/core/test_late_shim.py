"""On a busy machine a shim's turn comes late: while it lives, its sandbox is not lost, which would halt everybody."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

import pytest

from clawback.enforcement.core import watchdog
from clawback.enforcement.core.watchdog import Ending, Watchdog
from clawback.model import AgentState

pytestmark = pytest.mark.slow


def ticks(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])


def until(seen: Callable[[], Any]) -> None:
    deadline = time.monotonic() + 30
    while not seen():
        assert time.monotonic() < deadline
        os.sched_yield()


@pytest.mark.parametrize("lives", [True, False], ids=["shim lives", "shim gone"])
def test_a_sandbox_is_lost_only_once_its_shim_is_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, lives: bool
) -> None:
    monkeypatch.setattr(watchdog, "_GRACE_SECONDS", 0.0)
    ended: list[Ending] = []
    looks = 0
    read = watchdog.read_ending

    def look(folder: str) -> Ending | None:
        nonlocal looks
        looks += 1
        return read(folder)

    monkeypatch.setattr(watchdog, "read_ending", look)
    first, shim = (subprocess.Popen(["sleep", "600"]) for _ in range(2))
    watching = Watchdog(MagicMock(), lambda _entry, ending: ended.append(ending), heartbeat_seconds=3600)
    watching.start()
    try:
        box = SimpleNamespace(
            agent="a", instance="i1", folder=str(tmp_path), pid=first.pid, start_ticks=ticks(first.pid),
            shim_pid=shim.pid, shim_start_ticks=ticks(shim.pid),
        )  # fmt: skip
        watching.add(SimpleNamespace(box=box, tracked=SimpleNamespace(fields={})))  # type: ignore[arg-type]
        if not lives:
            shim.kill()
            shim.wait()
        first.kill()
        first.wait()
        if not lives:
            until(lambda: ended)
            assert ended == [Ending(AgentState.LOST, None)]
            return
        until(lambda: looks >= 3)
        assert ended == []
        (tmp_path / "exit.new").write_text(json.dumps({"signal": 9, "status": 0}))
        (tmp_path / "exit.new").rename(tmp_path / "exit.json")
        until(lambda: ended)
        assert ended == [Ending(AgentState.EXITED, -9)]
    finally:
        watching.close()
        for process in (first, shim):
            process.kill()
            process.wait()
