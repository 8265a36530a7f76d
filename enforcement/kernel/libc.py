"""The thin ctypes wall: system calls in, `OSError` with the kernel's errno out."""

from __future__ import annotations

import ctypes
import os
from typing import Any

from clawback.enforcement.kernel.syscalls import NUMBER

__all__ = [
    "CLONE_INTO_CGROUP",
    "CLONE_NEWCGROUP",
    "CLONE_NEWIPC",
    "CLONE_NEWNET",
    "CLONE_NEWNS",
    "CLONE_NEWPID",
    "CLONE_NEWTIME",
    "CLONE_NEWUSER",
    "CLONE_NEWUTS",
    "check",
    "clone3",
    "close_range",
    "libc",
    "mount",
    "pidfd_getfd",
    "pidfd_open",
    "pidfd_send_signal",
    "pivot_root",
    "prctl",
    "sethostname",
    "setns",
    "syscall",
    "umount2",
    "unshare",
]

# linux/sched.h
CLONE_NEWTIME = 0x00000080
CLONE_NEWNS = 0x00020000
CLONE_NEWCGROUP = 0x02000000
CLONE_NEWUTS = 0x04000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000
CLONE_INTO_CGROUP = 0x200000000

_SIGCHLD = 17

libc = ctypes.CDLL(None, use_errno=True)
"""For calls that may block: the interpreter lock is released meanwhile."""

_held = ctypes.PyDLL(None, use_errno=True)
"""For calls that return quickly or return twice: the interpreter lock stays with the calling thread."""

_syscall = _held.syscall
_syscall.restype = ctypes.c_long
_blocking_syscall = libc.syscall
_blocking_syscall.restype = ctypes.c_long


def check(result: int, what: str, *names: object) -> int:
    """The result, or the `OSError` that errno tells of; `what` and up to two `names` (paths) say what was attempted."""
    if result == -1:
        number = ctypes.get_errno()
        detail = " ".join(str(name) for name in names)
        raise OSError(number, f"{what}: {os.strerror(number)}", detail or None)
    return result


def _argument(value: Any) -> Any:
    if value is None:
        return ctypes.c_void_p(None)
    if isinstance(value, int):
        return ctypes.c_long(value)
    if isinstance(value, str):
        return os.fsencode(value)
    return value


def syscall(name_or_number: str | int, *arguments: Any, blocking: bool = False) -> int:
    """Any system call by name or number. Integers go as longs, None as a null pointer, str and bytes as char pointers,
    ctypes values as they are. `blocking` releases the interpreter lock. A name unknown here is ENOSYS.
    """
    number = NUMBER.get(name_or_number, -1) if isinstance(name_or_number, str) else name_or_number
    call = _blocking_syscall if blocking else _syscall
    return check(call(ctypes.c_long(number), *map(_argument, arguments)), str(name_or_number))


def clone3(flags: int, *, cgroup_fd: int | None = None) -> int:
    """Fork with new namespaces; 0 in the child, its pid in the parent. Safe in a single-threaded process only.

    `cgroup_fd` is an open v2 group directory that the child is born into (CLONE_INTO_CGROUP). The argument block is
    `struct clone_args` of linux/sched.h: eleven 64-bit words.
    """
    if cgroup_fd is not None:
        flags |= CLONE_INTO_CGROUP
    block = (ctypes.c_uint64 * 11)(flags, 0, 0, 0, _SIGCHLD, 0, 0, 0, 0, 0, cgroup_fd or 0)
    # Python's own fork hooks run around the raw call, or the child would keep the parent's idea of locks and ids.
    ctypes.pythonapi.PyOS_BeforeFork()
    pid = _syscall(ctypes.c_long(NUMBER["clone3"]), ctypes.byref(block), ctypes.c_long(ctypes.sizeof(block)))
    if pid == 0:
        ctypes.pythonapi.PyOS_AfterFork_Child()
        return 0
    number = ctypes.get_errno()
    ctypes.pythonapi.PyOS_AfterFork_Parent()
    if pid == -1:
        raise OSError(number, f"clone3: {os.strerror(number)}")
    return int(pid)


def unshare(flags: int) -> None:
    """Leave the namespaces named by CLONE_NEW* flags for new ones."""
    check(_held.unshare(ctypes.c_int(flags)), "unshare")


def setns(fd: int, flags: int = 0) -> None:
    """Enter a namespace by its fd, or several at once by a pidfd and CLONE_NEW* flags."""
    check(_held.setns(ctypes.c_int(fd), ctypes.c_int(flags)), "setns")


def mount(source: str | None, target: str, kind: str | None, flags: int, data: str | None = None) -> None:
    """Mount, remount, bind or change propagation, by MS_* flags."""
    encoded = [None if text is None else os.fsencode(text) for text in (source, target, kind, data)]
    result = _held.mount(encoded[0], encoded[1], encoded[2], ctypes.c_ulong(flags), encoded[3])
    check(result, f"mount {kind or hex(flags)}", source or "-", target)


def umount2(target: str, flags: int) -> None:
    """Unmount, by MNT_* flags."""
    check(_held.umount2(os.fsencode(target), ctypes.c_int(flags)), "umount2", target)


def pivot_root(new_root: str, put_old: str) -> None:
    """Make one mount the root and put the old root elsewhere."""
    check(_syscall(ctypes.c_long(NUMBER["pivot_root"]), os.fsencode(new_root), os.fsencode(put_old)), "pivot_root")


def prctl(option: int, *arguments: Any) -> int:
    """Any process control; missing arguments are zero."""
    padded = [*arguments, 0, 0, 0, 0][:4]
    return check(_held.prctl(ctypes.c_int(option), *map(_argument, padded)), f"prctl {option}")


def sethostname(name: str) -> None:
    """Name this UTS namespace."""
    encoded = os.fsencode(name)
    check(_held.sethostname(encoded, ctypes.c_size_t(len(encoded))), "sethostname")


def close_range(first: int, last: int = 0xFFFFFFFF) -> None:
    """Close every descriptor in the inclusive range."""
    if first <= last:
        check(
            _syscall(ctypes.c_long(NUMBER["close_range"]), ctypes.c_uint(first), ctypes.c_uint(last), ctypes.c_uint(0)),
            "close_range",
        )


def pidfd_open(pid: int) -> int:
    """A descriptor of a process, close-on-exec, readable once it has exited."""
    return os.pidfd_open(pid)


def pidfd_send_signal(pidfd: int, number: int) -> None:
    """Signal exactly that process."""
    syscall("pidfd_send_signal", pidfd, number, None, 0)


def pidfd_getfd(pidfd: int, fd: int) -> int:
    """A copy, close-on-exec, of another process's descriptor."""
    return syscall("pidfd_getfd", pidfd, fd, 0)
