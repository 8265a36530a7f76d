"""As root, gives a file to another user without being led astray by that user."""

from __future__ import annotations

import contextlib
import os
import stat

__all__ = ["give", "give_tree"]


def give(path: str | os.PathLike[str], uid: int, gid: int, *, dir_fd: int | None = None) -> None:
    """Chown a folder, or a regular file with one name; leave anything else, and what is missing.

    Whoever may write in a folder may put a link there under a name that root is about to chown: a symbolic link is not
    followed, and a file with a second name stays whose it is.
    """
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    with contextlib.suppress(FileNotFoundError):
        try:
            fd = os.open(path, flags, dir_fd=dir_fd)
        except OSError:  # a link, a socket
            return
        try:
            found = os.fstat(fd)
            plain = stat.S_ISDIR(found.st_mode) or (stat.S_ISREG(found.st_mode) and found.st_nlink == 1)
            if plain and (found.st_uid, found.st_gid) != (uid, gid):
                os.fchown(fd, uid, gid)
        finally:
            os.close(fd)


def give_tree(folder: str | os.PathLike[str], uid: int, gid: int) -> None:
    """Everything in the folder, and the folder."""
    for _, _, files, fd in os.fwalk(folder, follow_symlinks=False):
        for name in files:
            give(name, uid, gid, dir_fd=fd)
        os.fchown(fd, uid, gid)
