"""Refuse or allow every opening of a file by way of certain mounts: fanotify permission marks on mounts.

Needs CAP_SYS_ADMIN in the first user namespace. Who opens waits in the kernel until it is answered; when the last
descriptor of the group is closed, all who wait are let through. Only files and folders are asked about: a device or a
named pipe opens as before, and so does what was opened before the mark. proc takes no such mark (EINVAL): the kernel
fears for its locks. Formats: include/uapi/linux/fanotify.h, linux/openat2.h.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from clawback.enforcement.kernel.libc import syscall

__all__ = ["Asked", "OpenGate", "absent", "beneath", "marked"]

_CLOEXEC, _NONBLOCK, _CLASS_CONTENT, _UNLIMITED_QUEUE, _UNLIMITED_MARKS = 0x1, 0x2, 0x4, 0x10, 0x20
_MARK_ADD, _MARK_MOUNT = 0x1, 0x10
_OPEN_PERM, _ONDIR = 0x10000, 0x40000000
_ALLOW, _DENY = 0x1, 0x2
_EVENT = struct.Struct("=IBBHQii")  # event_len vers reserved metadata_len mask fd pid
_RESPONSE = struct.Struct("=iI")  # fd response
_BYTES = 1 << 14
_MOST_READ = 1024
"""More than the highest number that a descriptor gets in a process that has few and reads `_BYTES` of events."""
_MARK = re.compile(r"^fanotify mnt_id:([0-9a-f]+) ", re.MULTILINE)
_RESOLVE_NO_MAGICLINKS, _RESOLVE_IN_ROOT = 0x02, 0x10


@dataclass(frozen=True, slots=True)
class Asked:
    """Somebody waits to open a file; owed an `answer`. `descriptor` is the file, opened for us."""

    pid: int
    descriptor: int


def absent() -> bool:
    """Whether this kernel has no permission events at all, seen by asking for a group. `PermissionError` as below."""
    try:
        os.close(OpenGate().fileno())
    except OSError as error:
        if error.errno not in {errno.ENOSYS, errno.EINVAL}:  # EINVAL: fanotify without permission events
            raise
        return True
    return False


class OpenGate:
    """One permission group. `PermissionError` without the capability. Inherited by a fork, shared with it."""

    def __init__(self) -> None:
        flags = _CLASS_CONTENT | _CLOEXEC | _NONBLOCK | _UNLIMITED_QUEUE | _UNLIMITED_MARKS
        self._fd = syscall("fanotify_init", flags, os.O_RDONLY | os.O_CLOEXEC | os.O_LARGEFILE | os.O_NONBLOCK)

    def fileno(self) -> int:
        """For `poll`."""
        return self._fd

    def mark(self, descriptor: int) -> None:
        """Ask about openings by way of the mount that this (O_PATH) descriptor was reached by."""
        name = f"/proc/self/fd/{descriptor}"
        syscall("fanotify_mark", self._fd, _MARK_ADD | _MARK_MOUNT, _OPEN_PERM | _ONDIR, -100, name)

    def read(self) -> Iterator[Asked]:
        """Who waits now; never blocks. What cannot be opened for us the kernel refuses by itself."""
        try:
            data = os.read(self._fd, _BYTES)
        except OSError:
            return
        at = 0
        while at + _EVENT.size <= len(data):
            length, _version, _, _, _mask, descriptor, pid = _EVENT.unpack_from(data, at)
            at += max(length, _EVENT.size)
            if descriptor >= 0:
                yield Asked(pid, descriptor)

    def answer(self, asked: Asked, *, denied: bool) -> None:
        """Let the opener go on, with EPERM where it is denied."""
        try:
            with contextlib.suppress(FileNotFoundError):  # killed while it waited
                os.write(self._fd, _RESPONSE.pack(asked.descriptor, _DENY if denied else _ALLOW))
        finally:
            os.close(asked.descriptor)

    def deny_lost(self) -> None:
        """Refuse whatever a reader that is dead had read and not answered, who would wait for as long as the group is.

        The kernel knows them by the numbers that their descriptors had in that reader, and nothing else is left.
        """
        for number in range(_MOST_READ):
            with contextlib.suppress(FileNotFoundError):  # none of that number
                os.write(self._fd, _RESPONSE.pack(number, _DENY))


def marked(pid: int, descriptor: int) -> set[int]:
    """Ids, as in mountinfo, of the mounts that a process's group asks about. `FileNotFoundError` where it is gone."""
    text = Path(f"/proc/{pid}/fdinfo/{descriptor}").read_text()
    return {int(number, 16) for number in _MARK.findall(text)}


def beneath(root: int, path: str) -> int:
    """An O_PATH descriptor of an absolute path as processes with this root folder see it.

    No link, whoever made it, leads out: links are followed within that root, the kernel's magic ones not at all.
    """
    how = (ctypes.c_uint64 * 3)(os.O_PATH | os.O_CLOEXEC, 0, _RESOLVE_IN_ROOT | _RESOLVE_NO_MAGICLINKS)
    return syscall("openat2", root, path, ctypes.byref(how), ctypes.sizeof(how))
