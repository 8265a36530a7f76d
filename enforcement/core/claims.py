"""No two cores of a host give out the same user ids or use the same group: each claims its own for as long as it runs.

Agents are told apart by their outer user ids, and a halt freezes the whole group: two cores with one of them in common
would accuse each other's agents, and freeze them.

The claims are byte locks on one file, `/run/clawback/cores.lock`: byte N stands for user id N, and one far behind for
each group's name. The kernel lets them go with the process, however it ends, and no process that it made inherits them.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import random
import struct
from collections.abc import Iterator
from pathlib import Path

import structlog

from clawback.enforcement.kernel import namespaces
from clawback.enforcement.telemetry.roster import UIDS
from clawback.errors import Refused

__all__ = ["claimed", "unclaimed_uid_base"]

_FILE = Path("/run/clawback/cores.lock")
_GROUPS = 1 << 40
_FLOCK = struct.Struct("hhqqi4x")  # struct flock of fcntl(2): type, whence, start, length, pid
_BUSY = {errno.EACCES, errno.EAGAIN}
_FIRST, _LAST = 0x7000_0000, 0x7FFE_0000
"""Between what systemd gives to containers and what it keeps for foreign images: systemd's UIDS-GIDS."""

_log = structlog.get_logger()


@contextlib.contextmanager
def claimed(uid_base: int, cgroup: str, *, file: Path = _FILE) -> Iterator[None]:
    """Hold both until left. `Refused` where another core has one of them.

    A core that has no ids of its own to give claims nothing; one that cannot write there says so and goes on.
    """
    if not namespaces.gives_ids(uid_base):
        yield
        return
    try:
        file.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        _log.warning("user ids and group not claimed: another core may use them", file=str(file), error=error.strerror)
        yield
        return
    try:
        _claim(descriptor, uid_base, UIDS, f"core.uid_base {uid_base}: user ids up to {uid_base + UIDS - 1} are")
        _claim(descriptor, _place(cgroup), 1, f"core.cgroup {cgroup!r}: this group is")
        yield
    finally:
        os.close(descriptor)


def unclaimed_uid_base(*, file: Path = _FILE) -> int:
    """The first of as many user ids as a core takes, that no other core has now: for cores that live for a while only.

    Not to be called by a core: the claims of a process end when it closes the file, this time too.
    """
    blocks = range(_FIRST, _LAST, UIDS)
    chosen = random.sample(blocks, 32)
    try:
        descriptor = os.open(file, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return chosen[0]  # nobody claims anything, or this is not root, who gives no ids
    try:
        return next((base for base in chosen if not _holder(descriptor, base, UIDS)), chosen[0])
    finally:
        os.close(descriptor)


def _claim(descriptor: int, start: int, length: int, what: str) -> None:
    try:
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB, length, start)
    except OSError as error:
        if error.errno not in _BUSY:
            raise
        raise Refused(
            f"{what} in use by another core of this host (process {_holder(descriptor, start, length) or 'gone'})",
            hint="give each core a core.uid_base, 65,536 apart, and a core.cgroup of its own",
        ) from None


def _holder(descriptor: int, start: int, length: int) -> int:
    """The process that has a part of this; 0 where nobody has."""
    asked = _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, start, length, 0)
    kind, _, _, _, pid = _FLOCK.unpack(fcntl.fcntl(descriptor, fcntl.F_GETLK, asked))
    return 0 if kind == fcntl.F_UNLCK else int(pid) or -1


def _place(cgroup: str) -> int:
    return _GROUPS + int.from_bytes(hashlib.sha256(cgroup.encode()).digest()[:5], "big")
