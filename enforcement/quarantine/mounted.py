"""The mounts that an agent sees, as the kernel lists them."""

from __future__ import annotations

import errno
import re
from dataclasses import dataclass
from pathlib import Path

from clawback.enforcement.quarantine import tree
from clawback.enforcement.sandbox.record import Sandbox

__all__ = ["Mount", "View", "mounts", "private", "view"]

_OCTAL = re.compile(r"\\([0-7]{3})")


@dataclass(frozen=True, slots=True)
class Mount:
    """One line of mountinfo: `device` is `major:minor`, `kind` the file system's type, `source` what was mounted."""

    number: int
    path: str
    device: str
    kind: str
    source: str


@dataclass(frozen=True, slots=True)
class View:
    """What one look showed: the mounts, and which devices of theirs are the sandbox's own (`private`)."""

    mounts: tuple[Mount, ...]
    private: frozenset[str]


def mounts(box: Sandbox) -> tuple[Mount, ...]:
    """Lowest first; a later one of the same path lies on top. `ProcessLookupError` if the sandbox has ended."""
    with tree.process_folder(box) as folder:
        try:
            return _parsed(tree.read("mountinfo", dir_fd=folder))
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            # It is ending, and has left its namespaces before it leaves the list of processes.
            raise ProcessLookupError(errno.ESRCH, "the sandbox is ending") from None


def private(box: Sandbox) -> frozenset[str]:
    """Devices of file systems that are mounted in the sandbox and not where we are: what is written there stays."""
    return view(box).private


def view(box: Sandbox) -> View:
    """Both by one look. `ProcessLookupError` if the sandbox has ended."""
    outside = {line.split(" ", 3)[2] for line in _lines(Path("/proc/thread-self/mountinfo").read_text())}
    there = mounts(box)
    return View(there, frozenset(mount.device for mount in there) - outside)


def _lines(text: str) -> list[str]:
    # The kernel escapes a newline in a path, and not the other characters that `splitlines` takes for line ends.
    return [line for line in text.split("\n") if line]


def _parsed(text: str) -> tuple[Mount, ...]:
    found = []
    for line in _lines(text):
        before, _, after = line.partition(" - ")
        fields, kinds = before.split(" "), after.split(" ")
        path = _OCTAL.sub(lambda match: chr(int(match[1], 8)), fields[4])
        found.append(Mount(int(fields[0]), path, fields[2], kinds[0], kinds[1] if len(kinds) > 1 else ""))
    return tuple(found)
