"""The filter that sealing forces on an agent: it may compute, use what is open, and end; everything else is EPERM."""

from __future__ import annotations

import os
import struct
from functools import cache

from clawback.enforcement.kernel import landlock
from clawback.enforcement.kernel.seccomp import ALLOW, Action, Check, Condition, assemble, deny

__all__ = ["landlock_everything", "sealed_program"]

# No sockets, programs, processes, threads, new executable memory, io_uring, ptrace, memfd or descriptors from others.
# An allow-list, so that what a later kernel adds is denied. Without restart_syscall interrupted sleeps would fail.
_ALLOWED = """
read readv pread64 preadv preadv2 write writev pwrite64 pwritev pwritev2 close close_range fstat stat lstat newfstatat
statx lseek poll ppoll select pselect6 epoll_create1 epoll_create epoll_ctl epoll_wait epoll_pwait epoll_pwait2 brk
munmap mremap madvise mincore msync rt_sigaction rt_sigprocmask rt_sigreturn rt_sigpending rt_sigtimedwait
rt_sigsuspend sigaltstack pause alarm getitimer setitimer nanosleep clock_nanosleep clock_gettime clock_getres
gettimeofday time times timer_create timer_settime timer_gettime timer_getoverrun timer_delete timerfd_create
timerfd_settime timerfd_gettime futex futex_waitv futex_wake futex_wait futex_requeue set_robust_list get_robust_list
set_tid_address rseq sched_yield getpid gettid getppid getuid geteuid getgid getegid getpgrp getpgid getsid getgroups
getresuid getresgid getrusage getrlimit uname sysinfo getcpu getrandom sched_getaffinity getcwd readlink readlinkat
access faccessat faccessat2 getdents getdents64 dup dup2 dup3 fsync fdatasync wait4 waitid exit exit_group
restart_syscall membarrier arch_prctl flock
""".split()  # noqa: SIM905 - a list of 120 names, one to a line, hides what is missing from it

_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND | (os.O_TMPFILE & ~os.O_DIRECTORY)
_PROT_EXEC = 4
_HARMLESS_IOCTLS = (0x5401, 0x5413, 0x541B, 0x5421, 0x5450, 0x5451)  # TCGETS TIOCGWINSZ FIONREAD FIONBIO FIO(N)CLEX
_HARMLESS_FCNTLS = (0, 1, 2, 3, 4, 1030)  # DUPFD GETFD SETFD GETFL SETFL DUPFD_CLOEXEC

_CHECKED: dict[str, Action] = {
    "open": Check((((Condition(1, _WRITING),), deny()),), ALLOW),
    "openat": Check((((Condition(2, _WRITING),), deny()),), ALLOW),
    "mmap": Check((((Condition(2, _PROT_EXEC),), deny()),), ALLOW),
    "mprotect": Check((((Condition(2, _PROT_EXEC),), deny()),), ALLOW),
    "ioctl": Check((((Condition(1, values=_HARMLESS_IOCTLS),), ALLOW),), deny()),
    "fcntl": Check((((Condition(1, values=_HARMLESS_FCNTLS),), ALLOW),), deny()),
}


@cache
def sealed_program() -> bytes:
    """The program, assembled once."""
    return assemble(dict.fromkeys(_ALLOWED, ALLOW) | _CHECKED, deny())


@cache
def landlock_everything() -> bytes:
    """`struct landlock_ruleset_attr` that handles, and so denies, all that this kernel takes; empty without it."""
    words = landlock.accepted()
    length = max((index + 1 for index, word in enumerate(words) if word), default=0)
    return struct.pack(f"={length}Q", *words[:length])
