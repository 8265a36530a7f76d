"""Level 3: what release can take back. Secrets read empty, no process or thread starts, processor time is short."""

from __future__ import annotations

import os
import stat
from dataclasses import asdict
from pathlib import Path

from clawback.enforcement.quarantine import cover, limits, tree
from clawback.enforcement.quarantine.helper import Run
from clawback.enforcement.quarantine.result import Clock
from clawback.enforcement.sandbox.record import Sandbox
from clawback.errors import NotEnforced
from clawback.model import Level, LevelResult

__all__ = ["apply", "probe", "release"]

_ENDED = "the sandbox has ended: no process is left"
_NAMED = 16


def apply(box: Sandbox, run: Run) -> LevelResult:
    """Lower the limits, cover the secrets, look. Everything outlives the core and needs no process to hold it."""
    clock = Clock(Level.RESTRICT)
    if tree.gone(box):
        return clock.full(_ENDED)
    missing = [f"limit {what}" for what in limits.lower(box)] if box.cgroup or box.controllers else []
    missing += _cover(box, run, lift=False)
    return _judge(box, clock, missing)


def probe(box: Sandbox) -> LevelResult:
    """Read the limits, and every secret as a process inside would."""
    clock = Clock(Level.RESTRICT)
    return clock.full(_ENDED) if tree.gone(box) else _judge(box, clock, [])


def release(box: Sandbox, run: Run) -> LevelResult:
    """Lift the covers and put the limits back from what was written down before they were lowered."""
    clock = Clock(Level.RESTRICT)
    left = limits.put_back(box)
    if tree.gone(box):
        return clock.none(_ENDED)
    left += _cover(box, run, lift=True)
    try:
        left += [f"{path} is still covered" for path in sorted(cover.covered(box))]
    except ProcessLookupError:
        return clock.none(_ENDED)
    if left:
        return clock.partial("some restrictions still hold", *left)
    return clock.none("secrets are uncovered and limits as they were")


def _cover(box: Sandbox, run: Run, *, lift: bool) -> list[str]:
    try:
        answer = run("clawback.enforcement.quarantine.cover:run", {"box": asdict(box), "lift": lift})
    except ProcessLookupError:
        return []  # ended meanwhile, and the reading after this says so
    except (OSError, NotEnforced) as error:
        return [f"secrets could not be {'un' * lift}covered: {error}"]
    return [f"{path}: {reason}" for path, reason in sorted(answer["failed"].items())]


def _judge(box: Sandbox, clock: Clock, missing: list[str]) -> LevelResult:
    held, lacking = limits.lowered(box)
    missing += [what for what in lacking if f"limit {what}" not in missing]
    try:
        paths = cover.secrets(box)
        readable = [path for path in paths if _holds_something(box, path)]
        missing += [f"{path} can be read" for path in readable]
        missing += _open_already(box)
        missing += _elsewhere(box)
    except (ProcessLookupError, FileNotFoundError):
        if tree.gone(box):
            return clock.full(_ENDED)
        raise
    secrets = f"{len(paths) - len(readable)} of {len(paths)} secrets read empty"
    anything = bool(held) or len(readable) < len(paths)
    return clock.judged("; ".join([secrets, *held]), tuple(missing), anything=anything)


def _holds_something(box: Sandbox, path: str) -> bool:
    descriptor = os.open(f"/proc/{box.pid}/root{path}", os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        return os.read(descriptor, 1) != b""
    finally:
        os.close(descriptor)


def _open_already(box: Sandbox) -> list[str]:
    """Secrets that processes opened or mapped before: no cover takes a descriptor back, only the end of its holder."""
    device = Path(f"/proc/{box.pid}/root{cover.SECRETS}").stat().st_dev
    mapped = f" {os.major(device):02x}:{os.minor(device):02x} "
    found = []
    for pid in tree.processes(box):
        try:
            for name in tree.names(f"/proc/{pid}/fd"):
                link = Path(f"/proc/{pid}/fd/{name}")
                status = link.stat()
                if status.st_dev == device and stat.S_ISREG(status.st_mode):
                    found.append(f"process {pid} has {str(link.readlink())!r} open as {name}")
            if mapped in tree.read(f"/proc/{pid}/maps", limit=1 << 22):
                found.append(f"process {pid} has a secret mapped")
        except (FileNotFoundError, ProcessLookupError):
            continue
    return found if len(found) <= _NAMED else [*found[:_NAMED], f"{len(found) - _NAMED} more"]


def _elsewhere(box: Sandbox) -> list[str]:
    """Processes in another mount namespace than the one that was covered."""
    own = Path(f"/proc/{box.pid}/ns/mnt").stat().st_ino
    found = []
    for pid in tree.processes(box):
        try:
            if Path(f"/proc/{pid}/ns/mnt").stat().st_ino != own:
                found.append(f"process {pid} is in a mount namespace of its own")
        except (FileNotFoundError, ProcessLookupError):
            continue
    return found[:_NAMED]
