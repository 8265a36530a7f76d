"""What a process may do is asked of the kernel: root of a user namespace of its own is user 0 and little more."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from clawback.enforcement.kernel import cgroups, namespaces

ROOT_OF_NOTHING = """
import json, os
from pathlib import Path
from clawback.enforcement.gateway.privileges import drop
from clawback.enforcement.kernel import capabilities, libc, namespaces
from clawback.enforcement.kernel.process_events import ProcessEvents

me, mine = os.getuid(), os.getgid()
libc.unshare(libc.CLONE_NEWUSER)
Path("/proc/self/setgroups").write_text("deny")
Path("/proc/self/uid_map").write_text(f"0 {me} 1")
Path("/proc/self/gid_map").write_text(f"0 {mine} 1")
seen = {"uid": os.getuid(), "root": capabilities.effective(capabilities.SYS_ADMIN, capabilities.SETUID)}
seen["gives"] = [namespaces.gives_ids(number) for number in (0, 1, 1_900_000)]
try:
    ProcessEvents().close()
    seen["events"] = "on"
except OSError as error:
    seen["events"] = error.strerror
drop(None)
status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
seen["held"] = [int(status[name], 16) for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")]
seen["no new"] = status["NoNewPrivs"].strip()
print(json.dumps(seen))
"""


@pytest.mark.kernel
def test_root_of_its_own_namespace() -> None:
    done = subprocess.run([sys.executable, "-c", ROOT_OF_NOTHING], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {
        "uid": 0,
        "root": True,
        "gives": [True, False, False],
        "events": "the kernel reports processes in the first namespaces alone",
        "held": [0, 0, 0, 0, 0],
        "no new": "1",
    }


@pytest.mark.parametrize(
    ("table", "number", "expected"),
    [
        ("         0          0 4294967295\n", 1_900_000, True),
        ("         0       1001          1\n", 0, True),
        ("         0       1001          1\n", 1, False),
        ("0 1001 1\n1 100000 65536\n", 65_536, True),
        ("0 1001 1\n1 100000 65536\n", 65_537, False),
        ("", 0, False),
    ],
)
def test_id_maps(table: str, number: int, *, expected: bool) -> None:
    assert namespaces._mapped(table, number) is expected


@pytest.mark.kernel
def test_a_hierarchy_that_is_not_ours_is_left_out() -> None:
    # sysfs makes folders for nobody, which is what a hierarchy without delegation does.
    leaf = cgroups.make_leaf(cgroups.Hierarchies(v1={"pids": "/sys/kernel"}), "clawback-test", "leaf")
    assert leaf == cgroups.Leaf()
    assert cgroups.set_limits(leaf, memory=1 << 28, cpu=1.0, processes=4) == {
        "pids": False,
        "memory": False,
        "cpu": False,
    }
