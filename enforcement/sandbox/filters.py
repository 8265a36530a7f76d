"""Seccomp programs: `default` denies what containment could be left by, `minimal` allows what programs need, and a
policy's rules narrow either.
"""

from __future__ import annotations

import errno
from dataclasses import dataclass
from functools import cache

from clawback.enforcement.kernel import seccomp
from clawback.enforcement.kernel.seccomp import ALLOW, Action, Check, Compare, Condition, assemble, deny
from clawback.enforcement.kernel.syscalls import MACHINE
from clawback.enforcement.policy.calls import CallAction, CallRule, SyscallPolicy

__all__ = ["ALLOWED", "BASES", "BLOCKED", "Program", "denying", "programs"]

BASES = ("default", "minimal")


@dataclass(frozen=True, slots=True)
class Program:
    """One filter. `log`: its refusals are reported to audit. `notify`: it escalates, and wants a listener
    (SECCOMP_FILTER_FLAG_NEW_LISTENER, of which a thread can have one); installed without, what it escalates fails with
    ENOSYS.
    """

    code: bytes
    log: bool = True
    notify: bool = False


_CLONE_NEW = 0x7E020000  # every CLONE_NEW* flag but NEWTIME, whose bit is part of clone's exit signal
_CLONE_NEWTIME = 0x80
_TIOCSTI, _TIOCLINUX = 0x5412, 0x541C
_AT_EMPTY_PATH = 0x1000
_NEW_LISTENER = 0x8
_UNIX, _INET, _INET6, _NETLINK = 1, 2, 10, 16
_SOCK_TYPE = 0xF
_STREAM, _DGRAM = 1, 2

# By TCP and UDP alone: Landlock's rules for ports look at TCP, and MPTCP, SCTP and others would pass by them.
_INTERNET = (
    (
        Condition(0, values=(_INET, _INET6)),
        Condition(1, _SOCK_TYPE, (_STREAM, _DGRAM)),
        Condition(2, values=(0, 6, 17)),
    ),
    ALLOW,
)
_LOCAL = ((Condition(0, values=(_UNIX,)),), ALLOW)
_ROUTE = ((Condition(0, values=(_NETLINK,)), Condition(2, values=(0,))), ALLOW)

_CHECKED: dict[str, Action] = {
    "clone": Check((((Condition(0, _CLONE_NEW),), deny()),), ALLOW),
    "unshare": Check((((Condition(0, _CLONE_NEW | _CLONE_NEWTIME),), deny()),), ALLOW),
    "ioctl": Check((((Condition(1, values=(_TIOCSTI, _TIOCLINUX)),), deny()),), ALLOW),
    "execveat": Check((((Condition(4, _AT_EMPTY_PATH),), deny()),), ALLOW),
    "personality": Check((((Condition(0, values=(0, 0x8, 0x20000, 0x20008, 0xFFFFFFFF)),), ALLOW),), deny()),
    "socketpair": Check((_LOCAL,), deny()),
    # Sealing injects prctl and seccomp into the running agent, so they stay open: a filter can only tighten. What is
    # refused is a listener of the agent's own, which would take the place of the supervisor's.
    "seccomp": Check((((Condition(1, _NEW_LISTENER),), deny()),), ALLOW),
}


def _names(text: str) -> list[str]:
    return text.split()


_BLOCKED = _names("""
memfd_create memfd_secret ptrace bpf process_vm_readv process_vm_writev process_madvise process_mrelease pidfd_open
pidfd_getfd pidfd_send_signal kcmp io_uring_setup io_uring_enter io_uring_register mount umount2 mount_setattr
fsopen fsconfig fsmount fspick move_mount open_tree open_tree_attr pivot_root chroot setns statmount listmount listns
open_by_handle_at name_to_handle_at userfaultfd perf_event_open fanotify_init fanotify_mark add_key request_key
keyctl init_module finit_module delete_module create_module kexec_load kexec_file_load reboot swapon swapoff acct
quotactl quotactl_fd settimeofday clock_settime clock_adjtime adjtimex sethostname setdomainname syslog vhangup iopl
ioperm modify_ldt lookup_dcookie nfsservctl _sysctl uselib ustat sysfs lsm_set_self_attr get_kernel_syms
query_module afs_syscall getpmsg putpmsg security tuxcall vserver mknod mknodat move_pages migrate_pages mbind
set_mempolicy set_mempolicy_home_node remap_file_pages
""")

_ALLOWED = _names("""
read write open close stat fstat lstat poll lseek mmap mprotect munmap brk rt_sigaction rt_sigprocmask rt_sigreturn
pread64 pwrite64 readv writev preadv pwritev preadv2 pwritev2 access pipe pipe2 select pselect6 ppoll sched_yield
mremap msync mincore madvise dup dup2 dup3 pause nanosleep clock_nanosleep getitimer alarm setitimer getpid sendfile
connect accept accept4 sendto recvfrom sendmsg recvmsg sendmmsg recvmmsg shutdown bind listen getsockname
getpeername setsockopt getsockopt fork vfork execve exit exit_group wait4 waitid kill uname fcntl flock fsync
fdatasync truncate ftruncate getdents getdents64 getcwd chdir fchdir rename renameat renameat2 mkdir mkdirat rmdir
creat link linkat unlink unlinkat symlink symlinkat readlink readlinkat chmod fchmod fchmodat fchmodat2 chown fchown
lchown fchownat umask gettimeofday getrlimit setrlimit prlimit64 getrusage sysinfo times getuid getgid geteuid
getegid setpgid getppid getpgrp setsid getpgid getsid getgroups getresuid getresgid setuid setgid setreuid setregid
setresuid setresgid setfsuid setfsgid capget rt_sigpending rt_sigtimedwait rt_sigqueueinfo rt_sigsuspend
rt_tgsigqueueinfo sigaltstack utime utimes utimensat futimesat statfs fstatfs getpriority setpriority sched_setparam
sched_getparam sched_setscheduler sched_getscheduler sched_get_priority_max sched_get_priority_min
sched_rr_get_interval sched_setaffinity sched_getaffinity sched_setattr sched_getattr mlock munlock mlock2 mlockall
munlockall prctl arch_prctl sync syncfs sync_file_range gettid readahead getxattr lgetxattr fgetxattr listxattr
llistxattr flistxattr setxattr lsetxattr fsetxattr removexattr lremovexattr fremovexattr tkill tgkill time futex
futex_waitv futex_wake futex_wait futex_requeue epoll_create epoll_create1 epoll_ctl epoll_ctl_old epoll_wait
epoll_pwait epoll_pwait2 epoll_wait_old set_tid_address restart_syscall fadvise64 timer_create timer_settime
timer_gettime timer_getoverrun timer_delete clock_gettime clock_getres inotify_init inotify_init1 inotify_add_watch
inotify_rm_watch openat openat2 newfstatat faccessat faccessat2 set_robust_list get_robust_list splice tee vmsplice
signalfd signalfd4 timerfd_create timerfd_settime timerfd_gettime eventfd eventfd2 fallocate getcpu getrandom
copy_file_range membarrier statx rseq close_range shmget shmat shmctl shmdt semget semop semctl semtimedop msgget
msgsnd msgrcv msgctl mq_open mq_unlink mq_timedsend mq_timedreceive mq_notify mq_getsetattr pkey_mprotect pkey_alloc
pkey_free ioprio_get ioprio_set landlock_create_ruleset landlock_add_rule landlock_restrict_self cachestat
get_mempolicy mseal map_shadow_stack getpgrp get_thread_area set_thread_area
""")

# Programs try clone3 at every thread and spawn, and fall back to clone, whose flags a filter can see. Answered by a
# filter of its own, because every refusal of a logging filter is a denial in the telemetry.
_QUIET: dict[str, Action] = {"clone3": deny(errno.ENOSYS)}


BLOCKED = frozenset(_BLOCKED)
"""What no policy can open."""

ALLOWED = frozenset((*_ALLOWED, *_CHECKED, "socket", "clone3"))
"""What `minimal` allows, some of it by its arguments."""

_RESULTS = {
    CallAction.KILL: seccomp.KILL_PROCESS,
    CallAction.KILL_THREAD: seccomp.KILL_THREAD,
    CallAction.TRAP: seccomp.TRAP,
    CallAction.ESCALATE: ALLOW,  # by a program of its own
    CallAction.LOG: seccomp.LOG,
    CallAction.ALLOW: ALLOW,
}


@cache
def programs(policy: SyscallPolicy, *, machine: str = MACHINE) -> tuple[Program, ...]:
    """The filters of a policy, in the order of installing. `ValueError` for a policy that no loader would make.

    What escalates comes first, for the base refuses to make a listener. The quiet one comes last: of two that refuse
    with an errno the newer one's counts, and whether that is reported.
    """
    if policy.base not in BASES:
        raise ValueError(f"no seccomp profile {policy.base!r}")
    if BLOCKED.intersection(policy.also):
        raise ValueError(f"no policy can allow {', '.join(sorted(BLOCKED.intersection(policy.also)))}")
    if policy.base == "minimal":
        actions: dict[str, Action] = dict.fromkeys((*policy.also, *_ALLOWED), ALLOW)
        actions |= _CHECKED | {"clone3": ALLOW, "socket": Check((_INTERNET, _LOCAL), deny())}
        base = assemble(actions, deny(), machine=machine)
    else:
        actions = dict.fromkeys(_BLOCKED, deny())
        actions |= _CHECKED | {"socket": Check((_INTERNET, _LOCAL, _ROUTE), deny())}
        base = assemble(actions, ALLOW, machine=machine)
    quiet = Program(assemble(_QUIET, ALLOW, machine=machine), log=False)
    compiled = (*_escalating(policy, machine), *_narrowing(policy, machine), Program(base), quiet)
    longest = max(len(program.code) // 8 for program in compiled)
    if longest > seccomp.MOST_INSTRUCTIONS:
        raise ValueError(f"the filter has {longest} instructions, and the kernel takes {seccomp.MOST_INSTRUCTIONS}")
    return compiled


def _escalating(policy: SyscallPolicy, machine: str) -> tuple[Program, ...]:
    if not policy.escalates:
        return ()
    # A call that is refused as well is refused: the kernel asks nobody then.
    results = dict.fromkeys(CallAction, ALLOW) | {CallAction.ESCALATE: seccomp.ESCALATE}
    return (Program(_by_rules(policy, results, machine), log=False, notify=True),)


def _narrowing(policy: SyscallPolicy, machine: str) -> tuple[Program, ...]:
    used = {policy.otherwise, *(rule.action for rule in policy.rules)}
    if used <= {CallAction.ALLOW, CallAction.ESCALATE}:
        return ()
    return (Program(_by_rules(policy, _RESULTS, machine)),)


def _by_rules(policy: SyscallPolicy, results: dict[CallAction, int], machine: str) -> bytes:
    """The policy's rules, the strictest that holds deciding, in terms of `results`; `deny` is by errno if not there."""

    def result(action: CallAction, number: int) -> int:
        return deny(number) if action not in results else results[action]

    by_name: dict[str, list[CallRule]] = {}
    for rule in sorted(policy.rules, key=lambda rule: rule.action.strictness):
        for name in rule.names:
            by_name.setdefault(name, []).append(rule)
    otherwise = result(policy.otherwise, policy.errno)
    actions: dict[str, Action] = {}
    for name, rules in by_name.items():
        tested: list[tuple[tuple[Condition | Compare, ...], int]] = []
        last = otherwise
        for rule in rules:
            if not rule.tests:  # whatever comes after it is less strict
                last = result(rule.action, rule.errno)
                break
            tests = tuple(Compare(test.argument, test.operator, test.value, test.mask) for test in rule.tests)
            tested.append((tests, result(rule.action, rule.errno)))
        actions[name] = Check(tuple(tested), last) if tested else last
    return assemble(actions, otherwise, machine=machine)


@cache
def denying(names: tuple[str, ...]) -> bytes:
    """A filter that denies these calls and allows the rest."""
    return assemble(dict.fromkeys(names, deny()), ALLOW)
