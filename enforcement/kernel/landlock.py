"""Landlock: which files, TCP ports and processes a task may reach, by whatever ABI the kernel speaks (1 to 7)."""

from __future__ import annotations

import ctypes
import errno
import os
from dataclasses import dataclass

from clawback.enforcement.kernel import libc

__all__ = ["Rights", "abi", "accepted", "rights"]

# linux/landlock.h
_CREATE_VERSION = 1
_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR = 1, 2, 4, 8
_REFER, _TRUNCATE, _IOCTL_DEV = 1 << 13, 1 << 14, 1 << 15
_BIND_TCP, _CONNECT_TCP = 1, 2
_SCOPE_ABSTRACT_UNIX, _SCOPE_SIGNAL = 1, 2
_LOG_SAME_EXEC_OFF, _LOG_NEW_EXEC_ON = 1, 2

_READ = _EXECUTE | _READ_FILE | _READ_DIR
_FILE_ONLY = _EXECUTE | _WRITE_FILE | _READ_FILE | _TRUNCATE | _IOCTL_DEV


def abi() -> int:
    """The kernel's Landlock ABI; 0 where it has none or it is switched off."""
    try:
        return libc.syscall("landlock_create_ruleset", None, 0, _CREATE_VERSION)
    except OSError as error:
        if error.errno in {errno.ENOSYS, errno.EOPNOTSUPP}:
            return 0
        raise


def _files(version: int) -> int:
    handled = (1 << 13) - 1
    for since, right in ((2, _REFER), (3, _TRUNCATE), (5, _IOCTL_DEV)):
        if version >= since:
            handled |= right
    return handled


@dataclass(frozen=True, slots=True, kw_only=True)
class Rights:
    """The words of Landlock's structures for one ABI: what is handled, and what a rule of each kind grants.

    attributes, size   struct landlock_ruleset_attr: file, network and scope rights, and how much of it the ABI knows
    read, write        rights of a rule on a folder; on a file those of them in `file_only`
    connect            rights of a rule on a TCP port to connect to, 0 where the ABI has none
    flags              of landlock_restrict_self: denials after the next exec are reported to audit
    """

    version: int
    attributes: tuple[int, int, int]
    size: int
    read: int
    write: int
    file_only: int
    connect: int
    flags: int


def rights(version: int | None = None) -> Rights:
    """What this kernel's ABI can handle, or another's. Version 0 handles nothing."""
    version = abi() if version is None else version
    files = _files(version)
    return Rights(
        version=version,
        attributes=(
            files,
            _BIND_TCP | _CONNECT_TCP if version >= 4 else 0,
            _SCOPE_ABSTRACT_UNIX | _SCOPE_SIGNAL if version >= 6 else 0,
        ),
        size=24 if version >= 6 else 16 if version >= 4 else 8,
        read=_READ & files,
        write=files,
        file_only=_FILE_ONLY,
        connect=_CONNECT_TCP if version >= 4 else 0,
        flags=_LOG_SAME_EXEC_OFF | _LOG_NEW_EXEC_ON if version >= 7 else 0,
    )


def accepted() -> tuple[int, int, int]:
    """Every right that this kernel takes, known here or not: (files, network, scopes), found by asking for each alone.

    For whoever denies everything: what a later ABI adds is then denied too. Zeros without Landlock.
    """
    return _accepted(0), _accepted(1), _accepted(2)


def _accepted(word: int) -> int:
    found = 0
    for bit in range(64):
        words = [0, 0, 0]
        words[word] = 1 << bit
        try:
            # No more of the structure than is needed: an ABI that does not know a word refuses what holds it.
            block = (ctypes.c_uint64 * 3)(*words)
            os.close(libc.syscall("landlock_create_ruleset", ctypes.byref(block), 8 * (word + 1), 0))
        except OSError as error:
            if error.errno not in {errno.EINVAL, errno.E2BIG, errno.ENOMSG, errno.ENOSYS, errno.EOPNOTSUPP}:
                raise
            break  # rights are numbered without gaps
        found |= 1 << bit
    return found
