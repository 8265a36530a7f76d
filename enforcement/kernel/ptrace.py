"""Stop another process's threads and make system calls in their name (x86-64).

A tracer is a thread: everything here must happen in the thread that seized. Nothing blocks for long, because a
thread inside vfork ignores its interruption until its child is done.

Numbers: include/uapi/linux/ptrace.h, arch/x86/include/asm/user_64.h.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import signal
import time
from collections.abc import Sequence

from clawback.enforcement.kernel import libc
from clawback.enforcement.kernel.syscalls import NUMBER

__all__ = ["SUPPORTED", "CallError", "Gone", "NotStopped", "Tracee", "pause", "quiet"]

SUPPORTED = platform.machine() == "x86_64"
"""Injection writes this machine's registers."""

_SYSCALL, _GETREGS, _SETREGS, _DETACH, _SETOPTIONS = 24, 12, 13, 17, 0x4200
_SEIZE, _INTERRUPT, _GETSIGMASK, _SETSIGMASK, _GET_FILTER = 0x4206, 0x4207, 0x420A, 0x420B, 0x420C
_O_TRACESYSGOOD, _O_EXITKILL, _O_SUSPEND_SECCOMP = 0x1, 0x100000, 0x200000
_EVENT_STOP = 128
_WALL = 0x40000000
_SYSCALL_STOP = signal.SIGTRAP | 0x80

# Indices into struct user_regs_struct, 27 words.
_R10, _R9, _R8, _RAX, _RDX, _RSI, _RDI, _ORIG_RAX, _RIP, _CS = 7, 8, 9, 10, 12, 13, 14, 15, 16, 17
_ARGUMENTS = (_RDI, _RSI, _RDX, _R10, _R8, _R9)
_LONG_MODE = 0x33
_Registers = ctypes.c_ulonglong * 27

# Kernel-internal codes in a stopped thread's return register: its call is to be made again (include/linux/errno.h).
_RESTART_AGAIN = frozenset({512, 513, 514})
_RESTART_BLOCK = 516


class Gone(Exception):
    """The thread has ended."""


class NotStopped(Exception):
    """The thread did not stop in time."""


class CallError(OSError):
    """A call made in a thread's name failed with this errno."""


def quiet() -> None:
    """Before the first seizure, in the tracer: hold back the signal that announces stops, for `pause` to take."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})


def pause() -> None:
    """Until any tracee changes its state, or 2 ms: leaves the processor to them, and misses nothing."""
    signal.sigtimedwait({signal.SIGCHLD}, 0.002)


class Tracee:
    """One seized thread. Seized without options: should the tracer die before `arm`, the thread just goes free."""

    def __init__(self, tid: int, pid: int) -> None:
        self.tid = tid
        self.pid = pid
        self.stopped = False
        self._pending = 0
        self._saved: ctypes.Array[ctypes.c_ulonglong] | None = None
        self._mask = ctypes.c_uint64(0)
        self._ptrace(_SEIZE, 0, 0)

    def interrupt(self) -> None:
        """Ask it to stop; `wait_stopped` says when it has."""
        self._ptrace(_INTERRUPT, 0, 0)

    def poll_stopped(self) -> bool:
        """Whether it has stopped by now."""
        if not self.stopped:
            status = self._status()
            if status is None:
                return False
            self._note(status)
            self.stopped = True
        return True

    def wait_stopped(self, seconds: float) -> None:
        """Until it has stopped. `NotStopped` when the time is over."""
        end = time.monotonic() + seconds
        while not self.poll_stopped():
            if time.monotonic() > end:
                raise NotStopped(f"thread {self.tid} did not stop")
            pause()

    def arm(self) -> None:
        """Once stopped: if the tracer dies now, the kernel kills the thread; keep its registers and block its signals.

        Its own seccomp filters are suspended while calls are injected where that is permitted (root): a launch filter
        may deny the very calls that tighten it.
        """
        options = _O_TRACESYSGOOD | _O_EXITKILL
        try:
            self._ptrace(_SETOPTIONS, 0, options | _O_SUSPEND_SECCOMP)
        except OSError as error:
            if error.errno not in {errno.EPERM, errno.EINVAL}:
                raise
            self._ptrace(_SETOPTIONS, 0, options)
        registers = _Registers()
        self._ptrace(_GETREGS, 0, ctypes.byref(registers))
        self._ptrace(_GETSIGMASK, 8, ctypes.byref(self._mask))
        self._ptrace(_SETSIGMASK, 8, ctypes.byref(ctypes.c_uint64(0xFFFFFFFFFFFFFFFF)))
        self._saved = registers

    def call(self, name: str, arguments: Sequence[int], *, at: int) -> int:
        """Make a system call in its name, by the `syscall` instruction at address `at`. `CallError` with its errno."""
        if self._saved is None:
            raise NotStopped(f"thread {self.tid} is not armed")
        registers = _Registers(*self._saved)
        registers[_RAX] = NUMBER[name]
        registers[_ORIG_RAX] = 0xFFFFFFFFFFFFFFFF  # or the kernel would also restart the call it was interrupted in
        registers[_RIP] = at
        registers[_CS] = _LONG_MODE
        for register, value in zip(_ARGUMENTS, arguments, strict=False):
            registers[register] = value & 0xFFFFFFFFFFFFFFFF
        self._ptrace(_SETREGS, 0, ctypes.byref(registers))
        self._to_syscall_stop()  # entry
        self._to_syscall_stop()  # exit
        self._ptrace(_GETREGS, 0, ctypes.byref(registers))
        result = ctypes.c_longlong(registers[_RAX]).value
        if -4096 < result < 0:
            raise CallError(-result, f"{name} in thread {self.tid}: {os.strerror(-result)}")
        return result

    def filter(self, index: int) -> bytes | None:
        """The program of its `index`-th seccomp filter, oldest first; None where the kernel does not show it."""
        try:
            length = self._ptrace(_GET_FILTER, index, None)
            program = (ctypes.c_char * (8 * length))()
            self._ptrace(_GET_FILTER, index, ctypes.byref(program))
        except OSError:
            return None  # needs CAP_SYS_ADMIN and checkpoint/restore in the kernel; the count is read elsewhere
        return program.raw

    def release(self) -> None:
        """Put registers and signal mask back and let it go; what ended meanwhile is gone anyway."""
        if not self.stopped:
            return
        try:
            if self._saved is not None:
                self._ptrace(_SETREGS, 0, ctypes.byref(_resumed(self._saved)))
                self._ptrace(_SETSIGMASK, 8, ctypes.byref(self._mask))
            self._ptrace(_DETACH, 0, self._pending)
        except Gone:
            return
        self.stopped = False

    def _to_syscall_stop(self) -> None:
        end = time.monotonic() + 2.0
        while True:
            self._ptrace(_SYSCALL, 0, 0)
            while (status := self._status()) is None:
                if time.monotonic() > end:
                    raise NotStopped(f"thread {self.tid} did not come back from an injected call")
                pause()
            if os.WSTOPSIG(status) == _SYSCALL_STOP:
                return
            self._note(status)

    def _status(self) -> int | None:
        try:
            pid, status = os.waitpid(self.tid, os.WNOHANG | _WALL)
        except ChildProcessError:
            raise Gone from None
        if not pid:
            return None
        if not os.WIFSTOPPED(status):
            raise Gone
        return status

    def _note(self, status: int) -> None:
        """A signal that cannot be blocked (SIGSTOP) is handed over at release; event stops carry none."""
        if status >> 16 != _EVENT_STOP and os.WSTOPSIG(status) not in {signal.SIGTRAP, _SYSCALL_STOP}:
            self._pending = os.WSTOPSIG(status)

    def _ptrace(self, request: int, address: int, data: object) -> int:
        try:
            return libc.syscall("ptrace", request, self.tid, address, data)
        except ProcessLookupError:
            raise Gone from None


def _resumed(saved: ctypes.Array[ctypes.c_ulonglong]) -> ctypes.Array[ctypes.c_ulonglong]:
    """The registers with which a thread goes on where it was stopped: inside a call, it makes that call again.

    The kernel does this itself only on the way out of a signal, which an injected call has used up.
    """
    registers = _Registers(*saved)
    number = ctypes.c_longlong(registers[_ORIG_RAX]).value
    code = -ctypes.c_longlong(registers[_RAX]).value
    if number >= 0 and (code in _RESTART_AGAIN or code == _RESTART_BLOCK):
        registers[_RAX] = NUMBER["restart_syscall"] if code == _RESTART_BLOCK else number
        registers[_RIP] -= 2  # back over the `syscall` instruction
        registers[_ORIG_RAX] = 0xFFFFFFFFFFFFFFFF
    return registers
