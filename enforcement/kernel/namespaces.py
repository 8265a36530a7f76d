"""Namespaces: be born into them, map ids, bring loopback up, enter those of another process."""

from __future__ import annotations

import fcntl
import os
import socket
import struct
from functools import cache
from pathlib import Path

from clawback.enforcement.kernel import capabilities, imports, libc

__all__ = ["KINDS", "at_home", "enter", "gives_ids", "identities", "loopback", "own"]

KINDS: dict[str, int] = {
    "user": libc.CLONE_NEWUSER,
    "mnt": libc.CLONE_NEWNS,
    "pid": libc.CLONE_NEWPID,
    "net": libc.CLONE_NEWNET,
    "ipc": libc.CLONE_NEWIPC,
    "uts": libc.CLONE_NEWUTS,
    "cgroup": libc.CLONE_NEWCGROUP,
}
"""Names as under /proc/PID/ns, and their clone flags."""

_SIOCGIFFLAGS = 0x8913
_SIOCSIFFLAGS = 0x8914
_IFF_UP = 0x1


def gives_ids(number: int) -> bool:
    """Whether this process may make another run as user and group `number`: it has the right, and the id is mapped.

    Being user 0 says neither: in a user namespace of its own any user is, and has one id to give, its own.
    """
    if not capabilities.effective(capabilities.SETUID, capabilities.SETGID):
        return False
    return all(_mapped(Path(f"/proc/self/{kind}_map").read_text(), number) for kind in ("uid", "gid"))


def at_home(pid: int) -> bool:
    """Whether a process is in this one's user namespace, or has more rights than this one and so is no agent's.

    Who made a user namespace has every right over what is in it, and can see this of each of its processes.
    """
    try:
        return Path(f"/proc/{pid}/ns/user").stat().st_ino == Path("/proc/self/ns/user").stat().st_ino
    except PermissionError:
        return True
    except OSError:
        return False


def _mapped(table: str, number: int) -> bool:
    """user_namespaces(7): lines of first id inside, first id outside, count."""
    rows = ([int(field) for field in line.split()] for line in table.splitlines())
    return any(first <= number < first + count for first, _outside, count in rows)


def loopback(*, up: bool) -> None:
    """Set `lo` of this network namespace up or down. Up gives it 127.0.0.1 and ::1 by the kernel's own doing."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as control:
        request = fcntl.ioctl(control, _SIOCGIFFLAGS, struct.pack("16sh22x", b"lo", 0))
        flags = struct.unpack_from("h", request, 16)[0]
        flags = flags | _IFF_UP if up else flags & ~_IFF_UP
        fcntl.ioctl(control, _SIOCSIFFLAGS, struct.pack("16sh22x", b"lo", flags))


def identities(pid: int | str = "self") -> dict[str, int]:
    """Inode number of each namespace of a process. `OSError` where it is gone or not ours to see."""
    return {kind: os.stat(f"/proc/{pid}/ns/{kind}").st_ino for kind in KINDS}  # noqa: PTH116 - a launch reads seven


@cache
def own() -> dict[str, int]:
    """Those of this process, which never leaves them."""
    return identities()


def enter(pidfd: int, kinds: tuple[str, ...] = tuple(KINDS)) -> None:
    """Join the namespaces of a process, all or nothing. A pid namespace takes effect for children only.

    By descriptor, so that the caller can make sure of the process first: a number may have been given away. With its
    mounts, nothing is imported from a file any more.
    """
    flags = 0
    for kind in kinds:
        flags |= KINDS[kind]
    if "mnt" in kinds:
        imports.close()
    libc.setns(pidfd, flags)
