"""Seccomp user notification: a filter's listener, what a held call looks like, and the answers it can be given.

Structures and numbers are those of linux/seccomp.h. A held call stays held until it is answered or its thread is
killed; memory that its arguments point to is the other side's to change at any moment, and only what was copied out
once, and used from the copy, has been checked.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import struct
from dataclasses import dataclass
from typing import Self

from clawback.enforcement.kernel import libc
from clawback.enforcement.kernel.syscalls import NUMBER

__all__ = ["Held", "Listener", "Memory", "Vanished", "install", "sizes"]

_SET_MODE_FILTER = 1
_GET_NOTIF_SIZES = 3
_FLAG_LOG = 1 << 1
_FLAG_NEW_LISTENER = 1 << 3
_CONTINUE = 1
_ADDFD_SEND = 1 << 1
_SYNC_WAKE_UP = 1

# _IOWR('!', 0, 80), _IOWR('!', 1, 24), _IOW('!', 2, 8), _IOW('!', 3, 24), _IOW('!', 4, 8): the sizes are the ABI's own
# and stay in the numbers; a kernel with longer structures takes the short ones too only if it says so by `sizes`.
_RECV = 0xC0502100
_SEND = 0xC0182101
_ID_VALID = 0x40082102
_ADDFD = 0x40182103
_SET_FLAGS = 0x40082104

_HELD = struct.Struct("=QIIiIQ6Q")
_ANSWER = struct.Struct("=QqiI")
_NEW_FD = struct.Struct("=QIIII")
_SIZES = (_HELD.size, _ANSWER.size, 64)

_PROGRAM = struct.Struct("=H6xQ")  # struct sock_fprog on a 64-bit machine


class Vanished(Exception):
    """The call is no longer held: its thread was killed, a signal interrupted it, or somebody else answered."""


@dataclass(frozen=True, slots=True)
class Held:
    """One held call. `tid` is the thread as the reader's pid namespace numbers it, 0 where it is not in it.

    The six arguments are registers: they cannot change any more. What they point to can.
    """

    id: int
    tid: int
    number: int
    arch: int
    arguments: tuple[int, int, int, int, int, int]


def sizes() -> tuple[int, int, int]:
    """The kernel's sizes of a notification, an answer and seccomp_data, in bytes. `OSError` where it has none of it."""
    block = (ctypes.c_uint16 * 3)()
    libc.syscall("seccomp", _GET_NOTIF_SIZES, 0, ctypes.byref(block))
    return block[0], block[1], block[2]


def install(program: bytes, *, log: bool = False) -> int:
    """Put a filter on this thread and all it starts, for good; the descriptor of its listener, close-on-exec.

    From the return on every call that the filter marks is held until somebody answers it, so whatever must happen
    before there is anybody must not need such a call.

    WAIT_KILLABLE_RECV is left out on purpose: with it a held call can be woken by death alone, so a cgroup with one
    call waiting for a person would not freeze, and a seizure would not stop the thread. Without it a signal makes the
    call start over: whoever serves it must know it again. `OSError`: EBUSY where a filter with a listener is there
    already, EINVAL where the kernel knows no listeners.
    """
    code = ctypes.create_string_buffer(program, len(program))
    block = ctypes.create_string_buffer(_PROGRAM.pack(len(program) // 8, ctypes.addressof(code)), _PROGRAM.size)
    flags = _FLAG_NEW_LISTENER | (_FLAG_LOG if log else 0)
    return libc.syscall(NUMBER["seccomp"], _SET_MODE_FILTER, flags, ctypes.byref(block))


class Listener:
    """The reading side. Not thread-safe. The descriptor stays the caller's; it polls readable when a call is held,
    and hangs up when no thread is under the filter any more.
    """

    def __init__(self, fd: int) -> None:
        if sizes() != _SIZES:
            raise OSError(errno.ENOTSUP, f"seccomp notifications of {sizes()} bytes: this kernel's are not known")
        self.fd = fd
        self._held = bytearray(_HELD.size)
        self._empty = bytes(_HELD.size)

    def fileno(self) -> int:
        """The listener's descriptor."""
        return self.fd

    def wake_on_this_cpu(self) -> bool:
        """Have the kernel switch straight between the two sides (6.6); False where it cannot."""
        try:
            fcntl.ioctl(self.fd, _SET_FLAGS, _SYNC_WAKE_UP)
        except OSError as error:
            if error.errno not in {errno.EINVAL, errno.ENOTTY}:
                raise
            return False
        return True

    def receive(self) -> Held | None:
        """The oldest call that nobody has taken yet; None where it vanished. Waits where none is held: poll first."""
        block = self._held
        block[:] = self._empty  # the kernel refuses anything but zeros
        try:
            fcntl.ioctl(self.fd, _RECV, block)
        except OSError as error:
            if error.errno in {errno.ENOENT, errno.EINTR}:
                return None
            raise
        id_, tid, _flags, number, arch, _ip, *arguments = _HELD.unpack(block)
        return Held(id_, tid, number, arch, tuple(arguments))

    def valid(self, id_: int) -> bool:
        """Whether that very call is still held: what was read of its thread until now was that thread's."""
        try:
            fcntl.ioctl(self.fd, _ID_VALID, struct.pack("=Q", id_))
        except OSError as error:
            if error.errno == errno.ENOENT:
                return False
            raise
        return True

    def deny(self, id_: int, number: int = errno.EPERM) -> None:
        """The call fails with this errno. `Vanished` where it is not held."""
        self._send(_ANSWER.pack(id_, 0, -number, 0))

    def give(self, id_: int, value: int) -> None:
        """The call returns this value, nothing having been done by the kernel. `Vanished` where it is not held."""
        self._send(_ANSWER.pack(id_, value, 0, 0))

    def let_go(self, id_: int) -> None:
        """The kernel makes the call after all. Only for a decision that rests on registers: memory may have changed
        since it was looked at. `Vanished` where it is not held.
        """
        self._send(_ANSWER.pack(id_, 0, 0, _CONTINUE))

    def give_file(self, id_: int, fd: int, *, flags: int) -> None:
        """The call returns a copy of our descriptor, with `flags` (O_CLOEXEC or 0).

        One step (5.14): there is no moment in which the other side has the descriptor and not the answer. `Vanished`
        where the call is not held, `OSError` EMFILE where it may open no more.
        """
        try:
            fcntl.ioctl(self.fd, _ADDFD, _NEW_FD.pack(id_, _ADDFD_SEND, fd, 0, flags))
        except OSError as error:
            if error.errno in {errno.ENOENT, errno.EINPROGRESS}:
                raise Vanished from None
            raise

    def _send(self, answer: bytes) -> None:
        try:
            fcntl.ioctl(self.fd, _SEND, answer)
        except OSError as error:
            if error.errno in {errno.ENOENT, errno.EINPROGRESS}:
                raise Vanished from None
            raise


class Memory:
    """A held thread's memory, opened once: what is read later is of the same process, if the call is valid then.

    `OSError` where it may not be read (ESRCH, EACCES).
    """

    def __init__(self, tid: int) -> None:
        self._fd = os.open(f"/proc/{tid}/mem", os.O_RDONLY | os.O_CLOEXEC)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._fd)

    def read(self, address: int, count: int) -> bytes:
        """Exactly so many bytes, or `OSError` EFAULT, as the call itself would fail."""
        try:
            data = os.pread(self._fd, count, address) if 0 <= address < 1 << 63 else b""
        except OSError as error:
            if error.errno not in {errno.EIO, errno.EFAULT}:
                raise
            data = b""
        if len(data) < count:
            raise OSError(errno.EFAULT, f"{count} bytes at {address:#x} are not there")
        return data

    def text(self, address: int, limit: int) -> bytes:
        """Bytes up to a zero byte, without it. `OSError` ENAMETOOLONG past `limit`, EFAULT where the memory ends."""
        found = b""
        while len(found) < limit:
            # Page by page: the next page may not be there, and nobody asked for it if the text ends before.
            step = min(4096 - (address + len(found)) % 4096, limit - len(found))
            part = self.read(address + len(found), step)
            end = part.find(b"\0")
            if end >= 0:
                return found + part[:end]
            found += part
        raise OSError(errno.ENAMETOOLONG, f"no end of the text within {limit} bytes")
