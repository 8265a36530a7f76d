"""Without root: the whole drill, each level of a plain core, and what doctor says is missing."""

from __future__ import annotations

import contextlib
import json
import os
import time
from pathlib import Path

import pytest

pytestmark = pytest.mark.kernel


@pytest.mark.parts
@pytest.mark.slow
def test_the_demo(as_user, home: Path) -> None:
    done = as_user("-m", "clawback", "demo", "--json", "--keep", str(home / "kept"))
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    said = json.loads(done.stdout)
    assert said["problems"] == []
    steps = {receipt["action"]: receipt for receipt in said["receipts"]}
    enforced = {action: steps[f"agent.{action}"]["enforcement"] for action in ("freeze", "isolate", "restrict", "seal")}
    assert enforced == {"freeze": "partial", "isolate": "full", "restrict": "partial", "seal": "full"}
    assert "stopped by signal" in steps["agent.freeze"]["proof"]
    assert said["levels"].startswith("isolate, seal, stop full; freeze partial (stopped by signal")
    assert "levels of containment: " in done.stderr
    assert "telemetry without " in done.stderr
    for path in said["artefacts"].values():
        assert Path(path).exists()
    users = {int(line["uid"]) for line in _lines(home / "kept" / "log" / "gateway.log") if "uid" in line}
    assert users == {0}, "the gateway runs as the one user that there is"
    deadline = time.monotonic() + 10
    while os.geteuid() == 0 and (left := _processes_of(home.stat().st_uid)):  # shims end by themselves, after the core
        assert time.monotonic() < deadline, left
        time.sleep(0.05)


def _lines(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def _processes_of(uid: int) -> list[str]:
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            stat = (folder / "stat").read_text()
            if folder.stat().st_uid == uid and stat.rpartition(")")[2].split()[0] != "Z":  # ours to reap, or init's
                found.append(stat[:60])
    return found


LEVELS = """
import json, sys
from pathlib import Path
from clawback.enforcement.policy.types import SandboxPolicy
from clawback.enforcement.quarantine import ladder
from clawback.enforcement.sandbox.spawner import Spawner
from clawback.model import LaunchSpec, Level

spec = LaunchSpec(agent="alpha", command=("sleep", "300"), policy="p", policy_version=1, policy_text="")
policy = SandboxPolicy(name="p", network="restricted")
seen = {}

def note(verb, level, result):
    seen[f"{verb} {level.word}"] = [result.enforcement, result.observed, list(result.missing)]

with Spawner.start(Path(sys.argv[1])) as spawner:
    box = spawner.launch(spec, policy, secrets={"token": "value"}).record
    for level in (Level.FREEZE, Level.ISOLATE, Level.RESTRICT, Level.SEAL):
        note("apply", level, ladder.apply(box, level, run=spawner.run))
        note("probe", level, ladder.probe(box, level, run=spawner.run))
    for level in (Level.RESTRICT, Level.ISOLATE, Level.FREEZE):
        note("release", level, ladder.release(box, level, run=spawner.run))
    note("apply", Level.STOP, ladder.apply(box, Level.STOP, run=spawner.run))
    note("probe isolate of the dead:", Level.ISOLATE, ladder.probe(box, Level.ISOLATE, run=spawner.run))
print(json.dumps(seen))
"""


def test_each_level(as_user, home: Path) -> None:
    done = as_user("-c", LEVELS, str(home / "state"))
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout)
    for verb in ("apply", "probe"):
        assert seen[f"{verb} freeze"][:2] == ["partial", "2 of 2 processes stopped"]
        assert seen[f"{verb} isolate"][0] == "full", seen[f"{verb} isolate"]
        assert "127.0.0.1 ENETUNREACH" in seen[f"{verb} isolate"][1]
        assert seen[f"{verb} restrict"][0] == "partial"
        assert seen[f"{verb} restrict"][1].startswith("1 of 1 secrets read empty")
        assert seen[f"{verb} seal"][0] == "full", seen[f"{verb} seal"]
    assert seen["release restrict"][0] == "none"
    assert seen["release isolate"][:2] == [
        "none",
        "connect from inside reaches the gateway's listener on 127.0.0.1 and ::1",
    ]
    assert seen["release freeze"][0] == "none"
    assert seen["apply stop"][0] == "full"
    assert "has ended" in seen["probe isolate of the dead: isolate"][1]


def test_doctor_names_what_is_missing_and_its_fix(as_user) -> None:
    done = as_user("-m", "clawback", "doctor", "--json")
    assert done.returncode == 0, done.stderr
    checks = {check["name"]: check for check in json.loads(done.stdout)}
    missing = {name for name, check in checks.items() if not check["ok"]}
    assert missing - {"landlock"} == {
        "audit", "call tracing", "cgroup freeze and kill", "cgroup limits", "core", "fanotify", "gateway", "user ids"
    }  # fmt: skip
    assert all(checks[name]["lost"] and checks[name]["fix"] for name in missing)
    assert checks["namespaces"]["ok"]
    assert checks["ptrace"]["ok"]
    assert not [path for path in Path("/sys/fs/cgroup").glob("**/clawback-doctor-*") if path.is_dir()]
