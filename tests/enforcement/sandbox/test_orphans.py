"""A helper that is killed while its children are inside does not keep the sandbox from ending."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from clawback.enforcement.sandbox.attempt import attempt
from clawback.errors import NotEnforced
from clawback.model import Attempt

pytestmark = [pytest.mark.kernel, pytest.mark.slow]


def test_a_killed_helper_s_children_are_reaped(sandboxes: Any) -> None:
    launched = sandboxes.launch("sleep", "300")
    problems: list[BaseException] = []

    def look() -> None:
        try:
            attempt(sandboxes.spawner, launched.record, [Attempt(kind="syscall", target="pause")])
        except (NotEnforced, OSError) as error:
            problems.append(error)

    looking = threading.Thread(target=look)
    looking.start()
    inside = _inside(launched.record.pid)
    parent = int(Path(f"/proc/{inside}/stat").read_text().rpartition(")")[2].split()[1])
    os.kill(parent, 9)
    looking.join()
    assert problems
    os.kill(launched.record.pid, 9)
    assert launched.wait(30) == 137


def _inside(first: int) -> int:
    """The process in the sandbox's pid namespace whose parent is not in it."""
    namespace = Path(f"/proc/{first}/ns/pid").readlink()
    end = time.monotonic() + 10
    while time.monotonic() < end:
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                fields = (folder / "stat").read_text().rpartition(")")[2].split()
                if fields[0] == "Z" or (folder / "ns" / "pid").readlink() != namespace:
                    continue
                if folder.name != str(first) and Path(f"/proc/{fields[1]}/ns/pid").readlink() != namespace:
                    return int(folder.name)
            except OSError:
                continue
    raise AssertionError("nobody came inside")
