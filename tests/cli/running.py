"""The command as a user runs it, in a state folder, and a finding for its journal."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from clawback.model import Finding, Severity

FINDING = Finding(
    detector="d", agent="agent-1", instance="agent-1-a", severity=Severity.HIGH, technique="T", resource="/r",
    policy="p", policy_version=1, title="t", summary="s", time_ns=1, events=("e",),
)  # fmt: skip


def clawback(state: Path, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Not at a terminal, and with nothing of ours in the environment but what is given."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("CLAWBACK_")}
    return subprocess.run(
        [sys.executable, "-m", "clawback", "--state", str(state), *words],
        capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False, timeout=60,
        cwd=state, env=clean | environment,
    )  # fmt: skip
