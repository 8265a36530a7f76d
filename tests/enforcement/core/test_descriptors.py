"""A core takes all the open files that it may have, and says for how many agents they are enough."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

CODE = """
import json, sys
from pathlib import Path
from clawback import config
from clawback.doctor import examine
from clawback.enforcement.core import descriptors
descriptors.take_most()
found = descriptors.read()
checks = {check.name: check for check in examine(config.Settings(state=Path(sys.argv[1])))}
check = checks["descriptors"]
print(json.dumps([found.limit, found.agents, found.tight, check.ok, check.found, check.fix]))
"""


@pytest.mark.kernel
@pytest.mark.parametrize(("hard", "agents", "enough"), [(1024, 181, False), (4300, 1000, True)])
def test_a_low_hard_limit_is_named_with_what_it_is_enough_for(
    tmp_path: Path, hard: int, agents: int, enough: bool
) -> None:
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    if most < hard:
        pytest.skip(f"the hard limit here is {most}")
    done = subprocess.run(
        ["/usr/bin/prlimit", f"--nofile=256:{hard}", sys.executable, "-c", CODE, str(tmp_path)],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    limit, room, tight, ok, found, fix = json.loads(done.stdout)
    assert (limit, room, tight, ok) == (hard, agents, False, enough)
    assert found == f"enough for {agents:,} agents at once"
    assert "LimitNOFILE" in fix


@pytest.mark.kernel
def test_a_core_runs_with_its_hard_limit_and_says_so(core: Any, make_spec: Callable[..., Any]) -> None:
    limits = Path(f"/proc/{core.process.pid}/limits").read_text()
    soft, hard = next(line.split()[3:5] for line in limits.splitlines() if line.startswith("Max open files"))
    assert soft == hard
    said = core.client.health()["descriptors"]
    assert said["limit"] == int(hard)
    assert 0 < said["open"] < said["limit"]
    assert said["agents"] == (int(hard) - 300) // 4
