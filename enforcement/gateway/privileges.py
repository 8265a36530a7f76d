"""Gives up root for good: the process that parses what agents send has no privilege to lose."""

from __future__ import annotations

import ctypes
import importlib
import os
import resource

from clawback.enforcement.kernel import capabilities, libc

__all__ = ["drop", "load_late_modules"]

_PR_SET_PDEATHSIG, _PR_GET_PDEATHSIG = 1, 2

# Imported by the standard library and others when first used, which is after the drop.
_LATE = (
    "concurrent.futures.thread",
    "encodings.idna",
    "encodings.latin_1",
    "h11._writers",
    "idna.uts46data",
    "rich.traceback",
    "starlette.formparsers",
    "starlette.middleware.errors",
    "stringprep",
    "traceback",
)


def load_late_modules() -> None:
    """Import now what would be imported later: Python's own folders may be closed to the user that is about to be."""
    for name in _LATE:
        importlib.import_module(name)


def drop(uid: int | None) -> None:
    """Become `uid` (user and group) with no supplementary groups, and never gain a privilege again.

    With None the user stays, and the rights that it may have over a namespace go. Raises `OSError` where the kernel
    refuses; the caller must not go on then.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:  # two descriptors for each of an agent's connections
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    death_signal = _death_signal()
    if uid is not None:
        os.setgroups([])
        os.setresgid(uid, uid, uid)
        os.setresuid(uid, uid, uid)  # last: afterwards nothing above is permitted
        if os.getresuid() != (uid, uid, uid) or os.getresgid() != (uid, uid, uid) or os.getgroups():
            raise PermissionError("privileges were not dropped")
    elif capabilities.effective(capabilities.SETPCAP):
        capabilities.drop_bounding()
    capabilities.drop_all()
    capabilities.no_new_privileges()
    if death_signal:  # the kernel forgets it when a process changes its user: this one would outlive who started it
        libc.prctl(_PR_SET_PDEATHSIG, death_signal)


def _death_signal() -> int:
    """The signal that this process gets when its parent dies; 0 for none."""
    found = ctypes.c_int()
    libc.prctl(_PR_GET_PDEATHSIG, ctypes.addressof(found))
    return found.value
