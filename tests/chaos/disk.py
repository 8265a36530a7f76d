"""A small disk of a trial's own, that can be full: a tmpfs in a mount namespace that the host has no part in."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

__all__ = ["Disk", "own_mounts"]

CLONE_NEWNS = 0x20000
MS_REC, MS_PRIVATE = 0x4000, 0x40000
MNT_DETACH = 2
_BYTES = 24 << 20  # a journal, what SQLite writes ahead of it, and what a response leaves in files
_PAGE = 4096

_libc = ctypes.CDLL(None, use_errno=True)


def own_mounts() -> str:
    """What this process and its children mount from now on is seen by nobody else; why not, where it cannot be."""
    if os.geteuid() != 0:
        return "no root"
    if _libc.unshare(CLONE_NEWNS):
        return f"unshare: {os.strerror(ctypes.get_errno())}"
    _mount(None, "/", MS_REC | MS_PRIVATE)
    return ""


def _mount(kind: str | None, at: str, flags: int, data: str = "") -> None:
    if _libc.mount(b"none", at.encode(), kind and kind.encode(), ctypes.c_ulong(flags), data.encode() or None):
        raise OSError(ctypes.get_errno(), f"mount on {at}")


class Disk:
    """Mounted over a folder that is there and empty; gone with all that is on it by `close`."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._filler = folder, folder / "filler"
        _mount("tmpfs", str(folder), 0, f"size={_BYTES},mode=0700")

    def fill(self, pages: int) -> None:
        """Write until there is no space left, then leave so many pages."""
        handle = os.open(self._filler, os.O_WRONLY | os.O_CREAT, 0o600)
        try:
            size = 0
            for piece in (1 << 20, _PAGE):
                block = bytes(piece)
                try:
                    while (done := os.pwrite(handle, block, size)) > 0:
                        size += done
                except OSError:
                    pass  # no space left on the device, as is meant
            os.ftruncate(handle, max(0, size - pages * _PAGE))
        finally:
            os.close(handle)

    def free(self) -> None:
        self._filler.unlink(missing_ok=True)

    def close(self) -> None:
        if _libc.umount2(str(self._folder).encode(), MNT_DETACH):
            raise OSError(ctypes.get_errno(), f"umount of {self._folder}")
