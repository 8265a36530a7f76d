"""What an agent's processes hold from before: secrets and writable files, by descriptor or in memory.

No mount, mark or cover takes a descriptor back, only the end of its holder. Putting /dev/null in its place by force
would be possible, and lose what the agent had there: its offset, its locks, its data not yet written. That is no level
that release undoes; so each is named, and the level is partial until the agent is frozen, sealed or stopped.
"""

from __future__ import annotations

import os
import re
import stat
from dataclasses import dataclass
from pathlib import Path

from clawback.enforcement.quarantine import cover, mounted, tree
from clawback.enforcement.sandbox.record import Sandbox

__all__ = ["Held", "elsewhere", "held", "named"]

_NAMED = 16
_FLAGS = re.compile(r"^flags:\s*([0-7]+)", re.MULTILINE)
_MAP = re.compile(r"^\S+ .(.).(.) \S+ ([0-9a-f]+):([0-9a-f]+) \d+ +(/.*)$", re.MULTILINE)
_MEMORY = frozenset({"/dev/zero (deleted)"})


@dataclass(frozen=True, slots=True)
class Held:
    """`descriptor` -1 is a mapping. Paths are the agent's choice: they are shown quoted, never used."""

    pid: int
    path: str
    descriptor: int
    writable: bool

    @property
    def text(self) -> str:
        """`process 12 has '/run/secrets/token' open as 5`."""
        path = repr(self.path[:256])
        if self.descriptor < 0:
            return f"process {self.pid} has {path} mapped" + ", writable" * self.writable
        return f"process {self.pid} has {path} open as {self.descriptor}" + ", writable" * self.writable


def held(box: Sandbox) -> tuple[Held, ...]:
    """Of every process: secrets, and files that it may write and that others than the agent can read."""
    secret = Path(f"/proc/{box.pid}/root{cover.SECRETS}").stat().st_dev
    seen = {one.device for one in mounted.mounts(box)}
    leading = seen - mounted.private(box)
    found: list[Held] = []
    for pid in tree.processes(box):
        try:
            found += _open(pid, secret, leading)
            found += _mapped(pid, secret, leading)
        except (FileNotFoundError, ProcessLookupError):
            continue
    return tuple(found)


def named(found: tuple[Held, ...]) -> list[str]:
    """In words, the first of them one by one."""
    lines = [one.text for one in found[:_NAMED]]
    return lines if len(found) <= _NAMED else [*lines, f"{len(found) - _NAMED} more descriptors or mappings"]


def elsewhere(box: Sandbox) -> list[str]:
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


def _open(pid: int, secret: int, leading: set[str]) -> list[Held]:
    found = []
    for name in tree.names(f"/proc/{pid}/fd"):
        try:
            link = Path(f"/proc/{pid}/fd/{name}")
            status = link.stat()
            if not stat.S_ISREG(status.st_mode):
                continue
            device = f"{os.major(status.st_dev)}:{os.minor(status.st_dev)}"
            if status.st_dev != secret and device not in leading:
                continue
            flags = _FLAGS.search(tree.read(f"/proc/{pid}/fdinfo/{name}"))
            writable = flags is not None and int(flags[1], 8) & os.O_ACCMODE != os.O_RDONLY
            if writable or status.st_dev == secret:
                found.append(Held(pid, str(link.readlink()), int(name), writable))
        except FileNotFoundError:
            continue  # closed meanwhile
    return found


def _mapped(pid: int, secret: int, leading: set[str]) -> list[Held]:
    found = set()
    for write, share, major, minor, path in _MAP.findall(tree.read(f"/proc/{pid}/maps", limit=1 << 22)):
        device = os.makedev(int(major, 16), int(minor, 16))
        writable = share == "s" and write == "w" and f"{int(major, 16)}:{int(minor, 16)}" in leading
        if (device == secret or writable) and path not in _MEMORY:
            found.add(Held(pid, path, -1, writable))
    return sorted(found, key=lambda one: one.path)
