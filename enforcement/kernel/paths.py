"""Paths whose components an agent may exchange at any moment: each is opened by itself, and none may be a link.

What openat2(2) does with RESOLVE_NO_SYMLINKS, by calls that every kernel and every outer sandbox lets through.
"""

from __future__ import annotations

import errno
import os
import stat

__all__ = ["opened"]


def opened(path: str, *, make: bool = False, root: str = "/") -> int:
    """An absolute path, opened with O_PATH, close-on-exec. `make` makes folders that are not there; `root` is where it
    begins, such as another process's.

    `OSError`, with ELOOP where any part of it is a link.
    """
    flags = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
    fd = os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    for name in path.split("/"):
        if not name:
            continue
        try:
            try:
                following = os.open(name, flags, dir_fd=fd)
            except FileNotFoundError:
                if not make:
                    raise
                _make(name, fd)
                following = os.open(name, flags, dir_fd=fd)
        except OSError as error:
            raise OSError(error.errno, os.strerror(error.errno or 0), path) from None
        finally:
            os.close(fd)
        fd = following
        if stat.S_ISLNK(os.fstat(fd).st_mode):
            os.close(fd)
            raise OSError(errno.ELOOP, f"{name!r} is a link, and none may be in this path", path)
    return fd


def _make(name: str, folder: int) -> None:
    try:
        os.mkdir(name, 0o755, dir_fd=folder)
    except FileExistsError:
        return
