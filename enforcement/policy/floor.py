"""What no system-call policy may close: without it nothing could start, or a running agent could not be sealed."""

from __future__ import annotations

from clawback.enforcement.kernel.syscalls import MACHINE, TABLES
from clawback.enforcement.policy.calls import CallAction, SyscallPolicy
from clawback.enforcement.policy.escalation import refusal
from clawback.enforcement.policy.nodes import Item
from clawback.enforcement.sandbox.filters import programs

__all__ = ["NEEDED", "check_floor", "closed"]

_SPAWN = 0x4111  # CLONE_VM | CLONE_VFORK | SIGCHLD: how the first process starts the command
_STARTING = "the sandbox's first process could not start the command"
_SEALING = "a running agent could not be sealed: calls are injected into it"

NEEDED: dict[str, tuple[tuple[int, ...], str]] = {
    "seccomp": ((1, 0), _SEALING),
    "prctl": ((38, 1), _SEALING),
    "rt_sigreturn": ((), _SEALING),
    "restart_syscall": ((), _SEALING),
    "execve": ((), _STARTING),
    "clone": ((_SPAWN,), _STARTING),
    "exit_group": ((), _STARTING),
    "exit": ((), _STARTING),
    "wait4": ((), _STARTING),
    "read": ((), _STARTING),
    "write": ((), _STARTING),
    "close": ((), _STARTING),
    "sendto": ((), _STARTING),
    "sendmsg": ((), _STARTING),
    "recvfrom": ((), _STARTING),
    "recvmsg": ((), _STARTING),
    "dup2": ((), _STARTING),
    "dup3": ((), _STARTING),
    "fcntl": ((), _STARTING),
    "setsid": ((), _STARTING),
    "mmap": ((), _STARTING),
    "munmap": ((), _STARTING),
    "brk": ((), _STARTING),
    "rt_sigaction": ((), _STARTING),
    "rt_sigprocmask": ((), _STARTING),
    "futex": ((), _STARTING),
}
"""Call → the arguments that it must be let through with, and what fails otherwise."""


def closed(policy: SyscallPolicy) -> dict[str, str]:
    """The needed calls that the policy's own rules do not let through, and what that would break."""
    lets = (CallAction.ALLOW, CallAction.LOG)
    found = {}
    for name, (arguments, breaks) in NEEDED.items():
        action = policy.verdict(name, arguments)[0]
        if action is CallAction.ESCALATE and not refusal(name):
            continue
        if action not in lets:
            found[name] = breaks
    return found


def check_floor(item: Item, policy: SyscallPolicy, machine: str = MACHINE) -> None:
    """`InvalidInput` about `item` where the policy closes too much, escalates what cannot be, or is too long."""
    numbers = TABLES[machine]
    missing = {name: why for name, why in closed(policy).items() if name in numbers}
    if missing:
        name, why = next(iter(missing.items()))
        names = ", ".join(missing)
        raise item.wrong(f"too narrow: {why} without {name}", hint=f"allow {names}")
    for rule in policy.rules:
        for name in rule.names if rule.action is CallAction.ESCALATE else ():
            if why := refusal(name):
                raise item.wrong(f"{name} cannot be escalated", hint=why)
    if policy.otherwise is CallAction.ESCALATE:
        raise item.wrong("everything that is not listed would be escalated", hint="list what is; deny the rest")
    try:
        programs(policy, machine=machine)
    except ValueError as error:
        raise item.wrong(str(error), hint="use fewer tests of arguments") from None
