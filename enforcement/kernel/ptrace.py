"""Stop another process's threads and make system calls in their name.

A tracer is a thread: everything here must happen in the thread that seized. Nothing blocks for long, because a
thread inside vfork ignores its interruption until its child is done.

Numbers: include/uapi/linux/{ptrace,elf}.h; what differs by machine is in `registers`.
"""

from __future__ import annotations

import ctypes
import errno
import os
import signal
import time
from collections.abc import Sequence
from typing import Any

from clawback.enforcement.kernel import libc
from clawback.enforcement.kernel.registers import HERE, Machine

__all__ = ["SUPPORTED", "CallError", "Gone", "NotStopped", "Tracee", "pause", "quiet"]

SUPPORTED = HERE is not None
"""Injection writes this machine's registers."""

_SYSCALL, _DETACH, _SETOPTIONS, _GETREGSET, _SETREGSET = 24, 17, 0x4200, 0x4204, 0x4205
_SEIZE, _INTERRUPT, _GETSIGMASK, _SETSIGMASK, _GET_FILTER = 0x4206, 0x4207, 0x420A, 0x420B, 0x420C
_O_TRACESYSGOOD, _O_EXITKILL, _O_SUSPEND_SECCOMP = 0x1, 0x100000, 0x200000
_EVENT_STOP = 128
_WALL = 0x40000000
_SYSCALL_STOP = signal.SIGTRAP | 0x80

_NT_PRSTATUS = 1


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
        self.unfiltered = False  # its own seccomp filters are suspended: the kernel, and no filter, answers
        self._saved: list[int] | None = None
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
            self.unfiltered = True
        except OSError as error:
            if error.errno not in {errno.EPERM, errno.EINVAL}:
                raise
            self._ptrace(_SETOPTIONS, 0, options)
        registers = self._registers()
        self._ptrace(_GETSIGMASK, 8, ctypes.byref(self._mask))
        self._ptrace(_SETSIGMASK, 8, ctypes.byref(ctypes.c_uint64(0xFFFFFFFFFFFFFFFF)))
        self._saved = registers

    def call(self, name: str, arguments: Sequence[int], *, at: int) -> int:
        """Make a system call in its name, by the calling instruction at address `at`. `CallError` with its errno."""
        if self._saved is None:
            raise NotStopped(f"thread {self.tid} is not armed")
        machine = _machine()
        self._set_registers(machine.calling(self._saved, name, arguments, at))
        if machine.call_set:
            self._regset(_SETREGSET, machine.call_set, (ctypes.c_int * 1)(-1))
        self._to_syscall_stop()  # entry
        self._to_syscall_stop()  # exit
        result = machine.returned(self._registers())
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
                self._set_registers(_machine().resumed(self._saved))
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

    def _registers(self) -> list[int]:
        words = (ctypes.c_uint64 * _machine().words)()
        self._regset(_GETREGSET, _NT_PRSTATUS, words)
        return list(words)

    def _set_registers(self, words: Sequence[int]) -> None:
        self._regset(_SETREGSET, _NT_PRSTATUS, (ctypes.c_uint64 * len(words))(*words))

    def _regset(self, request: int, which: int, block: ctypes.Array[Any]) -> None:
        vector = (ctypes.c_uint64 * 2)(ctypes.addressof(block), ctypes.sizeof(block))  # struct iovec
        self._ptrace(request, which, ctypes.byref(vector))


def _machine() -> Machine:
    if HERE is None:
        raise NotStopped("injection is not written for this machine")
    return HERE
