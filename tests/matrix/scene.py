"""One agent's life in a process of its own: launched, quarantined level by level, released, stopped.

`scene.py STATE GROUP UID_BASE` prints as JSON what was said of it and what was seen.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from clawback.enforcement import features
from clawback.enforcement.policy.calls import CallAction, CallRule, SyscallPolicy
from clawback.enforcement.policy.types import SandboxPolicy
from clawback.enforcement.quarantine import ladder, tree
from clawback.enforcement.sandbox import attempt, inventory
from clawback.enforcement.sandbox.launched import Launched
from clawback.enforcement.sandbox.record import Sandbox
from clawback.enforcement.sandbox.spawner import Spawner
from clawback.errors import ClawbackError
from clawback.model import Attempt, LaunchSpec, Level, LevelResult

# It counts, and says with each count how an open, a socket and a fork of its own came out: 0 or an errno.
_AGENT = """
import os, socket, time
beat = os.open(os.environ["BEAT"], os.O_WRONLY)
def outcome(call):
    try:
        call()
    except OSError as error:
        return error.errno
    return 0
def spawn():
    child = os.fork()
    if not child:
        os._exit(0)
    os.waitpid(child, 0)
tries = (lambda: os.close(os.open("/usr/bin/env", os.O_RDONLY)), lambda: socket.socket().close(), spawn)
count = 0
while True:
    count += 1
    os.pwrite(beat, b"%020d %03d %03d %03d" % (count, *map(outcome, tries)), 0)
    time.sleep(0.001)
"""
_ATTEMPTS = (
    Attempt(kind="open", target="/"),
    Attempt(kind="open", target="/run/secrets/token"),
    Attempt(kind="connect", target="example.com:443"),
    Attempt(kind="syscall", target="mount"),
    Attempt(kind="spawn", target="/bin/true"),
)
_TRIED_AT = frozenset({Level.ISOLATE, Level.RESTRICT})
_UNDONE = (Level.SEAL, Level.RESTRICT, Level.ISOLATE, Level.FREEZE)


def _until(true: Callable[[], bool], what: str) -> None:
    end = time.monotonic() + 20
    while not true():
        if time.monotonic() > end:
            raise TimeoutError(what)
        time.sleep(0.005)


def _moves(beat: Path) -> bool:
    """Whether the agent counted on within a third of a second."""
    before = beat.read_bytes()
    end = time.monotonic() + 0.3
    while time.monotonic() < end:
        if beat.read_bytes() != before:
            return True
        time.sleep(0.005)
    return False


def _own_tries(beat: Path) -> dict[str, int]:
    """How the agent's own calls came out, as it wrote after now."""

    def count() -> int:
        return int(beat.read_bytes().split()[0])

    enough = count() + 2  # the one under way began before
    _until(lambda: count() >= enough, "the agent counts on")
    return dict(zip(("open", "socket", "fork"), map(int, beat.read_bytes().split()[1:]), strict=True))


def _tries(spawner: Spawner, box: Sandbox) -> dict[str, Any]:
    results = attempt.attempt(spawner, box, _ATTEMPTS)
    return {f"{one.attempt.kind} {one.attempt.target}": [one.denied, one.detail] for one in results}


def _as_json(result: LevelResult) -> dict[str, Any]:
    return {
        "enforcement": str(result.enforcement),
        "observed": result.observed,
        "missing": list(result.missing),
        "counts": result.counts,
    }


def _spec(agent: str, command: tuple[str, ...], folder: Path) -> LaunchSpec:
    return LaunchSpec(
        agent=agent,
        command=command,
        policy="test",
        policy_version=1,
        policy_text="",
        environment={"BEAT": f"{folder}/beat"},
        writable=(str(folder),),
    )


def _gone(launched: Launched) -> None:
    box = launched.record
    launched.close()
    _until(lambda: tree.gone(box), "the sandbox ends")
    _until(lambda: not inventory.is_process(box.shim_pid, box.shim_start_ticks), "the shim ends")
    _until(lambda: inventory.remove(box), "its groups are removed")


def _escalating(spawner: Spawner, folder: Path) -> str:
    """What became of a policy that has calls escalated."""
    rules = (CallRule(names=("chmod",), action=CallAction.ESCALATE),)
    policy = SandboxPolicy(name="escalating", syscalls=SyscallPolicy(rules=rules))
    try:
        launched = spawner.launch(_spec("asker", ("/bin/true",), folder), policy, secrets={})
    except ClawbackError as error:
        return str(error)
    _gone(launched)
    return str(launched.record.layers.get("escalation", "none"))


def _levels(spawner: Spawner, box: Sandbox, beat: Path) -> dict[str, Any]:
    found: dict[str, Any] = {"levels": {}, "released": {}}
    for level in Level:
        if level is Level.STOP:
            for undone in _UNDONE:
                found["released"][undone.word] = _as_json(ladder.release(box, undone, run=spawner.run))
            found["after"] = _own_tries(beat)
        seen = _as_json(ladder.apply(box, level, run=spawner.run))
        seen["probe"] = str(ladder.probe(box, level, run=spawner.run).enforcement)
        seen["moves"] = _moves(beat)
        if level in _TRIED_AT:
            seen["tries"] = _tries(spawner, box)
        found["levels"][level.word] = seen
    return found


def play(state: Path, group: str, uid_base: int) -> dict[str, Any]:
    """What doctor, the launch, each level, the probes, the agent and the attempts from inside said."""
    seen: dict[str, Any] = {"features": {one.name: [one.ok, one.found] for one in features.probe(uid_base)}}
    folder = state / "work"
    folder.mkdir()
    folder.chmod(0o777)
    beat = folder / "beat"
    beat.write_bytes(b"")
    beat.chmod(0o666)
    try:
        spawner = Spawner.start(state, cgroup=group, uid_base=uid_base, spares=0)
    except ClawbackError as error:
        return seen | {"refused": str(error), "hint": error.hint}
    with spawner:
        policy = SandboxPolicy(name="test", max_processes=32, max_memory=1 << 28, max_cpu=1.0)
        spec = _spec("subject", ("/usr/bin/python3", "-c", _AGENT), folder)
        launched = spawner.launch(spec, policy, secrets={"token": "not-to-be-read"})
        box = launched.record
        seen["layers"] = {name: str(value) for name, value in sorted(box.layers.items())}
        _until(lambda: beat.read_bytes() != b"", "the agent's first beat")
        seen["before"] = _own_tries(beat)
        seen["tries"] = _tries(spawner, box)
        seen |= _levels(spawner, box, beat)
        _gone(launched)
        seen["escalation"] = _escalating(spawner, folder)
    return seen


if __name__ == "__main__":
    print(json.dumps(play(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))))
