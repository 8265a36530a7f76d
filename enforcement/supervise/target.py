"""What a held thread is, and what its call's arguments lead to, copied out of it once."""

from __future__ import annotations

import ctypes
import errno
import ipaddress
import os
import socket
import struct
from dataclasses import dataclass
from pathlib import Path

from clawback.enforcement.kernel import libc
from clawback.enforcement.kernel.notify import Held, Memory

__all__ = [
    "AT_FDCWD",
    "Address",
    "Thread",
    "address",
    "descriptor",
    "identify",
    "place",
    "read_address",
    "read_path",
    "signed",
]

AT_FDCWD = -100
_PATH_MAX = 4096
_SOCKADDR_MAX = 128  # struct sockaddr_storage
_PIDFD_THREAD = os.O_EXCL  # linux/pidfd.h, from 6.9 on
_KCMP_FILES = 2


@dataclass(frozen=True, slots=True)
class Address:
    """A socket address: the bytes as they were copied, and what they say.

    `text` is `127.0.0.1:80`, `[::1]:80`, `unix:/path`, `unix:@name` or `family 16`; `host` is empty and `port` 0 for
    what has none. `path` is of a Unix socket in the file system, as given, else None.
    """

    raw: bytes
    text: str
    host: str = ""
    port: int = 0
    path: bytes | None = None


@dataclass(frozen=True, slots=True)
class Thread:
    """Who made the call: process and program as the host names them, ids as the sandbox numbers them."""

    tid: int
    pid: int
    exe: str
    inside_pid: int
    inside_tid: int
    umask: int


def signed(register: int) -> int:
    """The low half of a register as a C int, as the kernel takes descriptors and flags."""
    return ctypes.c_int32(register & 0xFFFF_FFFF).value


def identify(tid: int) -> Thread:
    """From /proc. `OSError` where it is gone."""
    fields = dict(
        line.split(":\t", 1)
        for line in Path(f"/proc/{tid}/status").read_text(errors="replace").splitlines()
        if ":\t" in line
    )
    try:
        exe = os.fsencode(Path(f"/proc/{tid}/exe").readlink()).decode("utf-8", "backslashreplace")
    except OSError:
        exe = ""  # a thread that is ending has none, and rootless it may not be ours to see
    return Thread(
        tid=tid,
        pid=int(fields["Tgid"]),
        exe=exe[:_PATH_MAX],
        inside_pid=int(fields["NStgid"].split()[-1]),
        inside_tid=int(fields["NSpid"].split()[-1]),
        umask=int(fields["Umask"], 8),
    )


def read_path(held: Held, register: int) -> bytes:
    """The path that a register points to. `OSError` as the kernel would fail: EFAULT, ENAMETOOLONG."""
    with Memory(held.tid) as memory:
        return memory.text(held.arguments[register], _PATH_MAX)


def read_address(held: Held, register: int, length: int) -> Address:
    """The socket address that a register points to. `OSError` EFAULT, EINVAL."""
    if not 2 <= signed(length) <= _SOCKADDR_MAX:
        raise OSError(errno.EINVAL, "an address of no length that a socket has")
    with Memory(held.tid) as memory:
        return address(memory.read(held.arguments[register], signed(length)))


def address(raw: bytes) -> Address:
    """What a sockaddr says. `OSError` EINVAL for one that is cut off."""
    (family,) = struct.unpack_from("=H", raw)
    if family == socket.AF_INET:
        if len(raw) < 8:
            raise OSError(errno.EINVAL, "an IPv4 address cut off")
        host, port = socket.inet_ntop(socket.AF_INET, raw[4:8]), int.from_bytes(raw[2:4], "big")
        return Address(raw, f"{host}:{port}", host, port)
    if family == socket.AF_INET6:
        if len(raw) < 24:
            raise OSError(errno.EINVAL, "an IPv6 address cut off")
        inner = ipaddress.IPv6Address(raw[8:24])
        port = int.from_bytes(raw[2:4], "big")
        if inner.ipv4_mapped is not None:  # the kernel sends it by IPv4: rules for that must see it so
            return Address(raw, f"{inner.ipv4_mapped}:{port}", str(inner.ipv4_mapped), port)
        return Address(raw, f"[{inner}]:{port}", str(inner), port)
    if family == socket.AF_UNIX:
        name = raw[2:]
        if name[:1] == b"\0":
            return Address(raw, "unix:@" + name[1:].decode("utf-8", "backslashreplace"))
        path = name.split(b"\0", 1)[0]
        return Address(raw, "unix:" + path.decode("utf-8", "backslashreplace"), path=path or None)
    return Address(raw, f"family {family}")


def descriptor(tid: int, pid: int, number: int) -> int:
    """A copy of a thread's descriptor: the same open file. `OSError` EBADF where it has none of this number."""
    try:
        pidfd = libc.syscall("pidfd_open", tid, _PIDFD_THREAD)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        # An older kernel opens processes only. A thread may have left the table of descriptors that its process has.
        if tid != pid and libc.syscall("kcmp", pid, tid, _KCMP_FILES, 0, 0) != 0:
            raise OSError(errno.EPERM, "a thread with descriptors of its own, on a kernel before 6.9") from None
        pidfd = os.pidfd_open(pid)
    try:
        return libc.pidfd_getfd(pidfd, number)
    finally:
        os.close(pidfd)


def place(tid: int, dirfd: int) -> int:
    """Where a thread's relative path starts, as an O_PATH descriptor. `OSError` EBADF, ENOTDIR."""
    name = "cwd" if dirfd == AT_FDCWD else f"fd/{dirfd}"
    try:
        return os.open(f"/proc/{tid}/{name}", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        raise OSError(errno.EBADF, "no such descriptor") from None
