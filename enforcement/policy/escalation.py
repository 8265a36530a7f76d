"""What a policy says about calls that are escalated: which can be, and which a rule decides without asking anybody.

The kernel's filter only marks a call. The supervisor then looks at it in full, and the first rule here that matches
decides; where none does a person is asked, and without an answer in time the call is refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from clawback.enforcement.policy.calls import ArgumentTest

__all__ = ["ADDRESSED", "NAMED", "Decision", "EscalationRule", "Support", "refusal", "support"]


class Decision(StrEnum):
    """What a rule says."""

    ALLOW = "allow"
    DENY = "deny"
    ASK = "ask"


@dataclass(frozen=True, slots=True, kw_only=True)
class EscalationRule:
    """One decision ahead of time. Of rules that match a call the first counts; what is empty matches anything.

    names        calls
    addresses    for `connect`, `bind`, `sendto`: `10.0.0.0/8:443`, `127.0.0.1:*`, `[::1]:80`, `unix:/path`,
                 `unix:/folder/*`, `unix:@name`
    paths        for the calls that name files: a file, or a folder with all below it; compared with where the path
                 really leads, links followed
    writes       True: only where the file would be opened for writing; False: only for reading
    tests        of the call's registers
    """

    names: tuple[str, ...]
    decision: Decision
    addresses: tuple[str, ...] = ()
    paths: tuple[str, ...] = ()
    writes: bool | None = None
    tests: tuple[ArgumentTest, ...] = field(default=())

    @classmethod
    def from_json(cls, given: Mapping[str, Any]) -> EscalationRule:
        """The rule from its fields as JSON has them; `KeyError`, `TypeError` or `ValueError` if they are not its."""
        return cls(
            names=tuple(given["names"]),
            decision=Decision(given["decision"]),
            addresses=tuple(given["addresses"]),
            paths=tuple(given["paths"]),
            writes=given["writes"],
            tests=tuple(ArgumentTest(**test) for test in given["tests"]),
        )


class Support(StrEnum):
    """How a call can be escalated."""

    EMULATED = "emulated"
    """Its memory is copied, the copy is decided on, and the call made from it, under the agent's own rights."""
    REGISTERS = "registers"
    """Decided by its name and registers, which nobody can change; the kernel makes it. What its pointers lead to is
    neither looked at nor shown, because another thread could change it afterwards."""
    NONE = "none"
    """It cannot be escalated: see `refusal`."""


ADDRESSED = frozenset({"connect", "bind", "sendto"})
"""Emulated calls that carry a socket address."""

NAMED = frozenset(
    "open openat openat2 creat mkdir mkdirat rmdir unlink unlinkat rename renameat renameat2".split()  # noqa: SIM905
)
"""Emulated calls that name files."""

# A sandbox's first process starts the command, hands over the listener and reports the end while it is itself under
# the filter; what every program does without pause has no place in a decision either.
_NEEDED = frozenset(
    """
    read write close readv writev pread64 pwrite64 sendmsg recvmsg recvfrom poll ppoll select pselect6
    epoll_wait epoll_pwait epoll_pwait2 futex futex_wait futex_wake futex_waitv futex_requeue mmap munmap
    mprotect mremap brk madvise rt_sigaction rt_sigprocmask rt_sigreturn rt_sigtimedwait sigaltstack
    restart_syscall exit exit_group wait4 waitid clone clone3 fork vfork prctl arch_prctl seccomp
    set_robust_list rseq set_tid_address setsid dup dup2 dup3 fcntl close_range nanosleep clock_nanosleep
    clock_gettime gettimeofday getrandom getpid gettid sched_yield
    """.split()  # noqa: SIM905 - a table of names
)


def support(name: str) -> Support:
    """How this call can be escalated."""
    if name in ADDRESSED or name in NAMED:
        return Support.EMULATED
    return Support.NONE if name in _NEEDED else Support.REGISTERS


def refusal(name: str) -> str:
    """Why a policy may not escalate this call; empty where it may."""
    if support(name) is not Support.NONE:
        return ""
    if name == "sendmsg":
        return (
            "sendmsg carries addresses and descriptors through memory, and the sandbox itself reports by it; "
            "escalate connect and sendto"
        )
    return f"{name} is needed to start, run or end any program: allow it or deny it"
