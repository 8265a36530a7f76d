"""A telemetry folder without room: what is not written is counted and told of later, and containment goes on."""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from clawback.model import Enforcement, Level

pytestmark = pytest.mark.kernel

DENIED = """
import ctypes, time
libc = ctypes.CDLL(None)
for _ in range(200):
    libc.syscall(163, 0)
print('done', flush=True)
time.sleep(600)
"""


def lost_to_the_file(core) -> int:
    form = r'^clawback_telemetry_lost_by_reason_total\{reason="file"\} (\S+)$'
    found = re.search(form, core.client.metrics(), re.MULTILINE)
    return int(float(found[1])) if found else 0


def heartbeat(folder: Path, component: str) -> dict[str, Any] | None:
    """The first one that tells of a loss; a line that the full disk cut short is no event."""
    for line in (folder / "sandbox.jsonl").read_bytes().split(b"\n"):
        with contextlib.suppress(ValueError):
            event = json.loads(line)
            lost = event["unmapped"].get("lost", 0) > 0 or "file" in event.get("message", "")
            if event.get("app", {}).get("name") == component and event["status_detail"] == "alive" and lost:
                return event
    return None


def test_a_full_disk_stops_no_containment_and_is_counted(core):
    core.end()
    folder = core.state / "telemetry"
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "clawback-test", folder], check=True)
    try:
        core.start()
        (folder / "filler").write_bytes(b"x" * (os.statvfs(folder).f_bavail * os.statvfs(folder).f_frsize))
        info, out = core.launch(DENIED)
        with os.fdopen(out) as said:
            assert said.readline() == "done\n"
        core.until(lambda: lost_to_the_file(core) >= 100, why="the loss was not counted")
        result = core.client.contain(info.agent, Level.FREEZE, reason="test", by="test")
        assert result.enforcement is Enforcement.FULL, result
        assert core.client.health()["status"] == "ok"
        (folder / "filler").unlink()
        beat = core.until(lambda: heartbeat(folder, "core"))
        assert re.search(r"\d+ file", beat["message"])
        told = core.until(lambda: heartbeat(folder, "sandbox"))
        assert told["unmapped"]["agent"] == info.agent
        assert 0 < told["unmapped"]["lost"] <= lost_to_the_file(core)
    finally:
        core.end()
        subprocess.run(["umount", folder], check=True)
        core.start()
