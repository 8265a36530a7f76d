"""The kernel's notice that something in a folder changed, by way of three C functions."""

from __future__ import annotations

import contextlib
import ctypes
import os
from pathlib import Path

from clawback.errors import NotEnforced

__all__ = ["Inotify"]

_IN_MODIFY, _IN_MOVED_TO, _IN_CREATE = 0x2, 0x80, 0x100  # linux/inotify.h
_IN_ONLYDIR = 0x01000000

_libc = ctypes.CDLL(None, use_errno=True)


class Inotify:
    """Readable whenever a file in the folder grew, was made or was moved there. Says that, not what: readers look."""

    def __init__(self, folder: Path) -> None:
        self._fd = _libc.inotify_init1(os.O_CLOEXEC | os.O_NONBLOCK)
        if self._fd < 0:
            raise NotEnforced(
                f"inotify: {os.strerror(ctypes.get_errno())}", hint="raise fs.inotify.max_user_instances (sysctl)"
            )
        mask = _IN_MODIFY | _IN_MOVED_TO | _IN_CREATE | _IN_ONLYDIR
        if _libc.inotify_add_watch(self._fd, os.fsencode(folder), mask) < 0:
            error = ctypes.get_errno()
            self.close()
            raise NotEnforced(
                f"cannot watch {folder}: {os.strerror(error)}", hint="raise fs.inotify.max_user_watches (sysctl)"
            )

    def fileno(self) -> int:
        """For poll and selectors."""
        return int(self._fd)

    def clear(self) -> None:
        """Forget what was reported so far. To be called before looking, or a change in between is missed."""
        with contextlib.suppress(BlockingIOError):
            os.read(self._fd, 65_536)

    def close(self) -> None:
        """Give the descriptor back."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
