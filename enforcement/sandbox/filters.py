"""The two seccomp profiles: `default` denies what containment could be left by, `minimal` allows what programs need."""

from __future__ import annotations

import errno
from functools import cache

from clawback.enforcement.kernel.seccomp import ALLOW, Action, Check, Condition, assemble, deny
from clawback.enforcement.kernel.syscalls import MACHINE

__all__ = ["PROFILES", "denying", "programs"]

PROFILES = ("default", "minimal")

_CLONE_NEW = 0x7E020000  # every CLONE_NEW* flag but NEWTIME, whose bit is part of clone's exit signal
_CLONE_NEWTIME = 0x80
_TIOCSTI, _TIOCLINUX = 0x5412, 0x541C
_AT_EMPTY_PATH = 0x1000
_NEW_LISTENER = 0x8
_UNIX, _INET, _INET6, _NETLINK = 1, 2, 10, 16
_SOCK_TYPE = 0xF
_STREAM, _DGRAM = 1, 2

_INTERNET = ((Condition(0, values=(_INET, _INET6)), Condition(1, _SOCK_TYPE, (_STREAM, _DGRAM))), ALLOW)
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
fsopen fsconfig fsmount fspick move_mount open_tree open_tree_attr pivot_root chroot setns statmount listmount
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


@cache
def programs(profile: str, *, machine: str = MACHINE) -> tuple[tuple[bytes, bool], ...]:
    """The filters of a profile with whether each reports its refusals, in the order of installing."""
    quiet = assemble(_QUIET, ALLOW, machine=machine)
    if profile == "minimal":
        actions: dict[str, Action] = dict.fromkeys(_ALLOWED, ALLOW)
        actions |= _CHECKED | {"clone3": ALLOW, "socket": Check((_INTERNET, _LOCAL), deny())}
        return (quiet, False), (assemble(actions, deny(), machine=machine), True)
    if profile != "default":
        raise ValueError(f"no seccomp profile {profile!r}")
    actions = dict.fromkeys(_BLOCKED, deny())
    actions |= _CHECKED | {"socket": Check((_INTERNET, _LOCAL, _ROUTE), deny())}
    return (quiet, False), (assemble(actions, ALLOW, machine=machine), True)


@cache
def denying(names: tuple[str, ...]) -> bytes:
    """A filter that denies these calls and allows the rest."""
    return assemble(dict.fromkeys(names, deny()), ALLOW)
