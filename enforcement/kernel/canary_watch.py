"""Decide whenever somebody opens one of certain files, in any mount namespace: fanotify permission marks on inodes.

Needs CAP_SYS_ADMIN in the first user namespace. Events carry a descriptor of the file, by which it is known again, and
the opener's pid, who waits in the kernel until it is answered; when the group is closed, all who wait are let through.
Formats: include/uapi/linux/fanotify.h.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass

from clawback.enforcement.kernel.libc import syscall

__all__ = ["CanaryWatch", "Opened"]

FAN_CLOEXEC = 0x1
FAN_NONBLOCK = 0x2
FAN_CLASS_CONTENT = 0x4
FAN_MARK_ADD = 0x1
FAN_MARK_REMOVE = 0x2
FAN_OPEN_PERM = 0x10000
FAN_Q_OVERFLOW = 0x4000
FAN_ALLOW = 0x1
FAN_DENY = 0x2

_EVENT = struct.Struct("=IBBHQii")  # event_len vers reserved metadata_len mask fd pid
_TURN = 64  # events taken at once: who floods decoys must not keep the reader from the others
_RESPONSE = struct.Struct("=iI")  # fd response


@dataclass(frozen=True, slots=True)
class Opened:
    """Somebody waits to open a marked file; owed an `answer`. `inode`: (device, number) as `mark` returned."""

    inode: tuple[int, int]
    pid: int
    descriptor: int


class CanaryWatch:
    """One permission group. `PermissionError` without the capability; `overflows` counts full queues."""

    def __init__(self) -> None:
        self.overflows = 0
        self._fd = syscall(
            "fanotify_init", FAN_CLASS_CONTENT | FAN_CLOEXEC | FAN_NONBLOCK, os.O_RDONLY | os.O_CLOEXEC | os.O_LARGEFILE
        )

    def fileno(self) -> int:
        """For `poll`."""
        return self._fd

    def mark(self, descriptor: int) -> tuple[int, int]:
        """Watch the file that this (O_PATH) descriptor stands for; returns what its events will be known by."""
        self._mark(FAN_MARK_ADD, descriptor)
        found = os.fstat(descriptor)
        return found.st_dev, found.st_ino

    def read(self) -> Iterator[Opened]:
        """What is there now; never blocks."""
        try:
            data = os.read(self._fd, _TURN * _EVENT.size)
        except BlockingIOError:
            return
        at = 0
        while at + _EVENT.size <= len(data):
            length, _version, _, _, mask, descriptor, pid = _EVENT.unpack_from(data, at)
            at += max(length, _EVENT.size)
            if mask & FAN_Q_OVERFLOW:
                self.overflows += 1
            if descriptor < 0:
                continue
            found = os.fstat(descriptor)
            yield Opened((found.st_dev, found.st_ino), pid, descriptor)

    def answer(self, opened: Opened, *, denied: bool) -> None:
        """Let the opener go on, with EPERM where it is denied."""
        try:
            os.write(self._fd, _RESPONSE.pack(opened.descriptor, FAN_DENY if denied else FAN_ALLOW))
        except FileNotFoundError:  # the opener was killed while it waited
            pass
        finally:
            os.close(opened.descriptor)

    def close(self) -> None:
        """Remove every mark; who waits goes on. Closing twice is closing once."""
        descriptor, self._fd = self._fd, -1
        if descriptor >= 0:
            os.close(descriptor)

    def _mark(self, operation: int, descriptor: int) -> None:
        # The path is the descriptor's own: a name could have been exchanged for another file since it was opened.
        syscall("fanotify_mark", self._fd, operation, FAN_OPEN_PERM, -100, f"/proc/self/fd/{descriptor}")
