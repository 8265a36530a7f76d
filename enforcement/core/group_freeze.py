"""Freeze everything in the core's cgroup by one write, for as long as it takes to freeze each leaf by its own."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from clawback.enforcement.kernel import cgroups

__all__ = ["frozen", "strike", "thaw"]


@contextlib.contextmanager
def frozen(group: str) -> Iterator[bool]:
    """Inside, nothing in the group runs, whatever was started meanwhile; whether the kernel has such a group at all.

    Thawed at the end in any case: from then on only the leaves that were frozen themselves stand still.
    """
    path = _file(group)
    there = path is not None and strike(str(path.parent))
    try:
        yield there
    finally:
        thaw(group)


def strike(cgroup: str) -> bool:
    """Tell the kernel to freeze a cgroup; False where it is gone. Reads nothing back."""
    try:
        fd = os.open(f"{cgroup}/cgroup.freeze", os.O_WRONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        os.write(fd, b"1")
    except OSError:  # ENODEV: removed between the two
        return False
    finally:
        os.close(fd)
    return True


def thaw(group: str) -> None:
    """Let go of the group; its frozen leaves stay frozen."""
    path = _file(group)
    if path is not None:
        with contextlib.suppress(FileNotFoundError):  # no agent was ever started, or the last one is gone
            path.write_text("0")


def _file(group: str) -> Path | None:
    root = cgroups.discover().unified
    return Path(root, group, "cgroup.freeze") if root else None
