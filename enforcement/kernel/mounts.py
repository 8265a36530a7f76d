"""Mounts, by their few useful forms: private tmpfs, recursive read-only bind, masking, and the change of root."""

from __future__ import annotations

import ctypes
import os

from clawback.enforcement.kernel import libc, paths

__all__ = [
    "MS_BIND",
    "MS_NODEV",
    "MS_NOEXEC",
    "MS_NOSUID",
    "MS_PRIVATE",
    "MS_RDONLY",
    "MS_REC",
    "MS_REMOUNT",
    "attach",
    "attributes",
    "change_root",
    "copy",
    "detached",
    "make_private",
    "tmpfs",
]

MS_RDONLY = 0x1
MS_NOSUID = 0x2
MS_NODEV = 0x4
MS_NOEXEC = 0x8
MS_REMOUNT = 0x20
MS_BIND = 0x1000
MS_REC = 0x4000
MS_PRIVATE = 0x40000
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


def make_private() -> None:
    """Stop this mount namespace from sending or receiving mounts; must come before any other mount in it."""
    libc.mount(None, "/", None, MS_REC | MS_PRIVATE)


def tmpfs(target: str, *, mode: int = 0o755, size: str = "1m", inodes: int = 4096, flags: int = 0) -> None:
    """A private file system in memory, never with devices or set-user-id programs."""
    data = f"mode={mode:o},size={size},nr_inodes={inodes}"
    libc.mount("tmpfs", target, "tmpfs", MS_NOSUID | MS_NODEV | flags, data)


def attributes(flags: int) -> int:
    """MS_* flags as mount_setattr knows them."""
    found = 0
    for flag, attribute in _MOUNT_ATTR.items():
        if flags & flag:
            found |= attribute
    return found


def detached(source: str, *, flags: int) -> int:
    """A copy of `source` with all that is mounted below it, attached nowhere yet: a descriptor, close-on-exec.

    Flags are set on every mount of the copy before anything can see it. `OSError` with ELOOP where a part of the path
    is a link: see `paths`.
    """
    return copy(source, attributes(flags))


def copy(source: str, wanted: int) -> int:
    """The same by the attributes that mount_setattr knows."""
    place = paths.opened(source)
    try:
        tree = libc.syscall(
            "open_tree", place, "", _OPEN_TREE_CLONE | _OPEN_TREE_CLOEXEC | _AT_RECURSIVE | _AT_EMPTY_PATH
        )
    finally:
        os.close(place)
    try:
        _set_attributes(tree, wanted)
    except BaseException:
        os.close(tree)
        raise
    return tree


def attach(tree: int, target: str) -> None:
    """Put a detached mount at `target`, which must be a folder for a folder and a file for a file, and no link."""
    place = paths.opened(target)
    try:
        libc.syscall("move_mount", tree, "", place, "", _MOVE_MOUNT_F_EMPTY_PATH | _MOVE_MOUNT_T_EMPTY_PATH)
    finally:
        os.close(place)


def _set_attributes(tree: int, wanted: int) -> None:
    block = (ctypes.c_uint64 * 4)(wanted, 0, 0, 0)  # struct mount_attr: set, clear, propagation, userns_fd
    libc.syscall("mount_setattr", tree, "", _AT_EMPTY_PATH | _AT_RECURSIVE, ctypes.byref(block), ctypes.sizeof(block))


def change_root(new_root: str) -> None:
    """Make `new_root` (a mount point) the root of this namespace and let go of all that was mounted before."""
    os.chdir(new_root)
    libc.pivot_root(".", ".")
    # Both roots are now stacked at "."; the old one lies on top and is what this detaches.
    libc.umount2(".", _MNT_DETACH)
    os.chdir("/")
