"""Capabilities: give all of them up, in every set, for good."""

from __future__ import annotations

import ctypes
import errno

from clawback.enforcement.kernel import libc

__all__ = [
    "SECUREBITS",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYS_ADMIN",
    "drop_all",
    "drop_bounding",
    "effective",
    "no_new_privileges",
]

SETGID, SETUID, SETPCAP, SYS_ADMIN = 6, 7, 8, 21
"""Numbers as in linux/capability.h."""

_PR_CAPBSET_DROP = 24
_PR_SET_NO_NEW_PRIVS = 38
_PR_CAP_AMBIENT = 47
_PR_CAP_AMBIENT_CLEAR_ALL = 4
_PR_SET_SECUREBITS = 28
# NOROOT, NO_SETUID_FIXUP, NO_CAP_AMBIENT_RAISE with their locks, KEEP_CAPS locked off: linux/securebits.h
SECUREBITS = 0x01 | 0x02 | 0x04 | 0x08 | 0x20 | 0x40 | 0x80
_VERSION_3 = 0x20080522


def drop_bounding(securebits: int = SECUREBITS) -> None:
    """Empty the bounding set and lock the secure bits. Needs CAP_SETPCAP: must come before the user id is changed."""
    for capability in range(64):
        try:
            libc.prctl(_PR_CAPBSET_DROP, capability)
        except OSError as error:
            if error.errno != errno.EINVAL:  # EINVAL: past the last one this kernel knows
                raise
            break
    libc.prctl(_PR_SET_SECUREBITS, securebits)


def effective(*capabilities: int) -> bool:
    """Whether this thread may use all of these now, in its user namespace. They say nothing of what lies outside it."""
    header = (ctypes.c_uint32 * 2)(_VERSION_3, 0)
    sets = (ctypes.c_uint32 * 6)()
    libc.syscall("capget", ctypes.byref(header), ctypes.byref(sets))
    return all(sets[3 * (number // 32)] & 1 << number % 32 for number in capabilities)


def drop_all() -> None:
    """Clear the ambient, inheritable, permitted and effective sets of this thread."""
    libc.prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL)
    header = (ctypes.c_uint32 * 2)(_VERSION_3, 0)
    sets = (ctypes.c_uint32 * 6)()
    libc.syscall("capset", ctypes.byref(header), ctypes.byref(sets))


def no_new_privileges() -> None:
    """From here on no exec gains anything. Demanded by seccomp and Landlock without CAP_SYS_ADMIN."""
    libc.prctl(_PR_SET_NO_NEW_PRIVS, 1)
