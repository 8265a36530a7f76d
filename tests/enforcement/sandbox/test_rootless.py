"""Without root: the same sandbox, as far as the kernel lets an ordinary user, and a record that says how far."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [
    pytest.mark.kernel,
    pytest.mark.skipif(os.geteuid() != 0, reason="becomes another user, which only root can"),
]

USER = 65_533
SCRIPT = """
import json, os, sys
from pathlib import Path
from clawback.enforcement.policy.types import SandboxPolicy
from clawback.enforcement.sandbox.attempt import attempt
from clawback.enforcement.sandbox.spawner import Spawner
from clawback.model import Attempt, LaunchSpec

def spec(*command):
    return LaunchSpec(
        agent="alpha", command=command, policy="p", policy_version=1, policy_text="", writable=(sys.argv[2],)
    )

policy = SandboxPolicy(name="p", max_memory=1 << 28)
probe = "id -u; cat /run/secrets/token; echo made > " + sys.argv[2] + "/made; cat /etc/shadow; unshare -U true; exit 4"
with Spawner.start(Path(sys.argv[1]), canaries=("/root/.aws/credentials",)) as spawner:
    first = spawner.launch(spec("sh", "-c", probe), policy, secrets={"token": "value"})
    status = first.wait(20)
    second = spawner.launch(spec("sleep", "300"), policy, secrets={})
    tries = [Attempt(kind="open", target="/etc/shadow"), Attempt(kind="syscall", target="mount")]
    seen = [one.denied for one in attempt(spawner, second.record, tries)]
    os.kill(second.record.pid, 9)
    second.wait(20)
    print(json.dumps({
        "status": status,
        "output": Path(first.record.folder, "output.log").read_text(),
        "layers": first.record.layers,
        "cgroup": first.record.cgroup,
        "uid": first.record.uid,
        "listener": first.listener_fd >= 0,
        "attempts": seen,
    }))
"""


def _python() -> str | None:
    """An interpreter with this package that an ordinary user may run."""
    probe = [sys.executable, "-c", "import clawback.enforcement.sandbox.spawner"]
    try:
        done = subprocess.run(probe, user=USER, group=USER, extra_groups=[], capture_output=True, cwd="/", check=False)
    except PermissionError:
        return None
    return None if done.returncode else sys.executable


@pytest.mark.usefixtures("way")
def test_an_ordinary_user_gets_what_the_kernel_gives(state: Path) -> None:
    work = state / "work"
    work.mkdir()
    for folder in (state, work):
        shutil.chown(folder, USER, USER)
    python, environment = _python(), dict(os.environ)
    if python is None:
        # The interpreter is in a home: the system's own, with the packages by path, does as well.
        python = "/usr/bin/python3"
        source = state / "packages"
        shutil.copytree(Path(__file__).parents[3] / "src" / "clawback", source / "clawback", symlinks=False)
        site = next(Path(path) for path in sys.path if path.endswith("site-packages"))
        environment["PYTHONPATH"] = f"{source}:{site}"
        if subprocess.run(
            [python, "-c", "import structlog, clawback"],
            user=USER,
            env=environment,
            capture_output=True,
            cwd="/",
            check=False,
        ).returncode:
            pytest.skip("no interpreter that an ordinary user may run")
    done = subprocess.run(
        [python, "-c", SCRIPT, str(state), str(work)],
        user=USER, group=USER, extra_groups=[], env=environment, capture_output=True, text=True, cwd="/", timeout=120,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout)
    assert seen["status"] == 4
    assert seen["output"].startswith("1000\nvalue")
    assert (work / "made").stat().st_uid == USER
    assert seen["listener"]
    assert seen["attempts"] == [True, True]
    assert (seen["uid"], seen["cgroup"]) == (USER, "")
    layers = seen["layers"]
    assert {name for name, how in layers.items() if how == "none"} == {"cgroup", "memory"}
    assert {name for name, how in layers.items() if how == "partial"} == {"uid", "pids"}
