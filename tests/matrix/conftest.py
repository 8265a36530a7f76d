"""Plays the scene under each mask that was asked for: all begun at once, a few at a time, for most of it is waiting."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

_HERE = Path(__file__).parent
_UIDS = 70_000  # as many as a core may hand out, and more


@dataclass(frozen=True)
class Run:
    """One life. `seen` is the scene's answer, `said` what it wrote on standard error."""

    status: int
    seen: dict[str, Any]
    said: str
    state: Path
    group: str
    uids: range


def _play(name: str, way: str, number: int) -> Run:
    state = Path(tempfile.mkdtemp(prefix="cb-", dir="/tmp"))
    group = f"clawback-matrix-{secrets.token_hex(4)}"
    uid_base = 700_000_000 + secrets.randbelow(400) * 3_000_000 + number * _UIDS  # no two overlap
    state.chmod(0o755)
    command = [sys.executable, _HERE / "scene.py", state, group, str(uid_base)]
    done = subprocess.run(
        [sys.executable, _HERE / "mask.py", name, *command],
        env=dict(os.environ, CLAWBACK_SHIM=way),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    seen = json.loads(done.stdout) if done.returncode == 0 else {}
    return Run(done.returncode, seen, done.stderr, state, group, range(uid_base, uid_base + _UIDS))


@pytest.fixture(scope="module")
def runs(request: pytest.FixtureRequest) -> Iterator[dict[tuple[str, str], Future[Run]]]:
    """Those that were asked for, begun."""
    if os.geteuid():
        pytest.skip("taking features away needs root")
    asked = [item for item in request.session.items if isinstance(item, pytest.Function) and item.path.parent == _HERE]
    wanted = [item.callspec.params["run"] for item in asked if hasattr(item, "callspec")]
    with ThreadPoolExecutor(5) as pool:
        begun = {run: pool.submit(_play, *run, number) for number, run in enumerate(wanted)}
        yield begun
        for future in begun.values():
            if not future.cancel():
                shutil.rmtree(future.result().state, ignore_errors=True)
