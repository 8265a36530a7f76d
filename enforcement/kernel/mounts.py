"""Mounts, by their few useful forms: private tmpfs, recursive read-only bind, masking, and the change of root."""

from __future__ import annotations

import ctypes
import os
import stat
from pathlib import Path

from clawback.enforcement.kernel import libc

__all__ = [
    "MS_NODEV",
    "MS_NOEXEC",
    "MS_NOSUID",
    "MS_RDONLY",
    "attach",
    "bind_read_only",
    "change_root",
    "detached",
    "is_folder",
    "make_private",
    "mask",
    "proc",
    "remount_read_only",
    "tmpfs",
]

MS_RDONLY = 0x1
MS_NOSUID = 0x2
MS_NODEV = 0x4
MS_NOEXEC = 0x8
_MS_REMOUNT = 0x20
_MS_BIND = 0x1000
_MS_REC = 0x4000
_MS_PRIVATE = 0x40000
_MS_SLAVE = 0x80000
_MNT_DETACH = 2

# linux/mount.h
_AT_RECURSIVE = 0x8000
_AT_EMPTY_PATH = 0x1000
_OPEN_TREE_CLONE = 1
_OPEN_TREE_CLOEXEC = os.O_CLOEXEC
_MOVE_MOUNT_F_EMPTY_PATH = 4
_MOVE_MOUNT_T_EMPTY_PATH = 0x40
_MOUNT_ATTR = {MS_RDONLY: 0x1, MS_NOSUID: 0x2, MS_NODEV: 0x4, MS_NOEXEC: 0x8}
_AT_FDCWD = -100


def make_private() -> None:
    """Stop this mount namespace from sending or receiving mounts; must come before any other mount in it."""
    libc.mount(None, "/", None, _MS_REC | _MS_PRIVATE)


def tmpfs(target: str, *, mode: int = 0o755, size: str = "1m", inodes: int = 4096, flags: int = 0) -> None:
    """A private file system in memory, never with devices or set-user-id programs."""
    data = f"mode={mode:o},size={size},nr_inodes={inodes}"
    libc.mount("tmpfs", target, "tmpfs", MS_NOSUID | MS_NODEV | flags, data)


def detached(source: str, *, flags: int) -> int:
    """A copy of `source` with all that is mounted below it, attached nowhere yet: a descriptor, close-on-exec.

    Flags are set on every mount of the copy before anything can see it.
    """
    tree = libc.syscall("open_tree", _AT_FDCWD, source, _OPEN_TREE_CLONE | _OPEN_TREE_CLOEXEC | _AT_RECURSIVE)
    try:
        attributes = 0
        for flag, attribute in _MOUNT_ATTR.items():
            if flags & flag:
                attributes |= attribute
        _set_attributes(tree, attributes)
    except BaseException:
        os.close(tree)
        raise
    return tree


def is_folder(tree: int) -> bool:
    """Whether a detached mount shows a folder rather than a file."""
    return stat.S_ISDIR(os.fstat(tree).st_mode)


def attach(tree: int, target: str) -> None:
    """Put a detached mount at `target`, which must be a folder for a folder and a file for a file."""
    libc.syscall("move_mount", tree, "", _AT_FDCWD, target, _MOVE_MOUNT_F_EMPTY_PATH)


def _set_attributes(tree: int, attributes: int) -> None:
    block = (ctypes.c_uint64 * 4)(attributes, 0, 0, 0)  # struct mount_attr: set, clear, propagation, userns_fd
    libc.syscall("mount_setattr", tree, "", _AT_EMPTY_PATH | _AT_RECURSIVE, ctypes.byref(block), ctypes.sizeof(block))


def bind_read_only(target: str) -> None:
    """Mount a folder over itself, read-only, with what is mounted below it."""
    tree = detached(target, flags=MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC)
    try:
        attach(tree, target)
    finally:
        os.close(tree)


def remount_read_only(target: str, *, flags: int = MS_NOSUID | MS_NODEV) -> None:
    """Make an existing mount of ours read-only."""
    libc.mount(None, target, None, _MS_REMOUNT | _MS_BIND | MS_RDONLY | flags)


def proc(target: str) -> None:
    """The process file system of this pid namespace."""
    libc.mount("proc", target, "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC)


def mask(target: str, *, null: str = "/dev/null") -> None:
    """Hide a file behind the null device or a directory behind an empty read-only tmpfs."""
    if Path(target).is_dir():
        tmpfs(target, mode=0o555, size="4k", inodes=2, flags=MS_RDONLY | MS_NOEXEC)
    else:
        libc.mount(null, target, None, _MS_BIND)


def change_root(new_root: str) -> None:
    """Make `new_root` (a mount point) the root of this namespace and let go of all that was mounted before."""
    os.chdir(new_root)
    libc.pivot_root(".", ".")
    # Both roots are now stacked at "."; the old one lies on top and is what this detaches.
    libc.umount2(".", _MNT_DETACH)
    os.chdir("/")
