"""What an agent's threads give up for good, as operations: capabilities, then Landlock, then seccomp."""

from __future__ import annotations

from enum import Enum
from functools import cache

from clawback.enforcement.kernel import landlock
from clawback.enforcement.sandbox import filters, tree
from clawback.enforcement.sandbox.job import Restrictions
from clawback.enforcement.sandbox.recipe import Op, write

__all__ = ["Escalating", "begin", "canary", "give_up", "rules"]

_PR_SET_NO_NEW_PRIVS = 38
_FLAG_LOG, _FLAG_NEW_LISTENER = 2, 8  # linux/seccomp.h


@cache
def _rights() -> landlock.Rights:
    """A kernel's ABI does not change while it runs."""
    return landlock.rights()


def _rule(path: str, access: int) -> bytes:
    return write(Op.LANDLOCK_PATH, path, access, access & _rights().file_only)


def begin(root: str) -> bytes:
    """A ruleset with what every sandbox may read, and may write in /dev. Nothing where the kernel has no Landlock."""
    known = _rights()
    if known.version < 1:
        return b""
    return b"".join(
        [
            write(Op.LANDLOCK, *known.attributes, known.size),
            *(_rule(root + path, known.read) for path in tree.READABLE),
            _rule(f"{root}/dev", known.write),
        ]
    )


def canary(root: str, path: str) -> bytes:
    """A decoy, readable together with its folder if it could be placed."""
    known = _rights()
    return write(Op.CANARY, root, root + path, known.read, known.read & known.file_only)


def rules(root: str, restrictions: Restrictions) -> bytes:
    """What this agent may read, write and connect to besides."""
    known = _rights()
    if known.version < 1:
        return b""
    return b"".join(
        [
            *(_rule(root + path, known.read) for path in restrictions.read),
            *(_rule(root + path, known.write) for path in restrictions.write),
            *(write(Op.LANDLOCK_PORT, known.connect, port) for port in restrictions.ports if known.connect),
        ]
    )


class Escalating(Enum):
    """What becomes of the program that escalates."""

    HEARD = "with a listener for the shim"
    UNHEARD = "nobody listens: what escalates fails with ENOSYS"
    LEFT_OUT = "it is not installed"


def give_up(restrictions: Restrictions, escalating: Escalating) -> bytes:
    """Everything, in the order that each step still allows the next; the bounding set is gone before."""
    known = _rights()
    parts = [write(Op.DROP_CAPABILITIES), write(Op.PRCTL, _PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)]
    if known.version >= 1:
        parts.append(write(Op.LANDLOCK_ENFORCE, known.flags))
    parts.append(write(Op.PROBE))
    parts += [
        _install(program, notify=program.notify and escalating is Escalating.HEARD)
        for program in filters.programs(restrictions.syscalls)
        if not (program.notify and escalating is Escalating.LEFT_OUT)
    ]
    if restrictions.deny:
        parts.append(_install(filters.Program(filters.denying(restrictions.deny)), notify=False))
    return b"".join(parts)


def _install(program: filters.Program, *, notify: bool) -> bytes:
    flags = (_FLAG_LOG if program.log else 0) | (_FLAG_NEW_LISTENER if notify else 0)
    return write(Op.NOTIFY if notify else Op.SECCOMP, flags, program.code)
