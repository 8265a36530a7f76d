"""What no sandbox is made without: each system call tried, with the kernel that has it, and namespaces entered.

A call is tried with arguments that it refuses before it does anything, so that trying changes nothing; what its answer
tells is whether it is there.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from clawback.enforcement.kernel import libc

__all__ = ["NEEDS", "Need", "in_child", "lacking"]

_ALL = 0xFFFFFFFF
# Kernels from here on have all of the calls.
_LEAST = "5.12"


@dataclass(frozen=True, slots=True, kw_only=True)
class Need:
    """`since`: the first Linux that has it. `problem` is empty, or what is missing and the errno's name."""

    name: str
    since: str
    problem: Callable[[], str]
    fix: str

    @property
    def sentence(self) -> str:
        """Why no sandbox can be made, for people; empty where nothing is missing."""
        problem = self.problem()
        return (
            f"no sandbox can be made here: {self.name}: {problem}; Linux has it since {self.since}" if problem else ""
        )


def _calls(**wanted: tuple[Any, ...]) -> Callable[[], str]:
    def problem() -> str:
        for name, arguments in wanted.items():
            try:
                libc.syscall(name, *arguments)
            except OSError as error:
                # EPERM is a container's refusal, but for move_mount: without the right to mount its answer anyway.
                if error.errno == errno.ENOSYS or (error.errno == errno.EPERM and name != "move_mount"):
                    return f"{name} is refused ({errno.errorcode[error.errno]})"
        return ""

    return problem


def in_child(attempt: Callable[[], None]) -> str:
    """Run in a forked child; the empty string, or the name of the errno it failed with. Not in a threaded process."""
    child = os.fork()
    if child == 0:
        try:
            attempt()
        except OSError as error:
            os._exit(min(error.errno or 255, 255))
        os._exit(0)
    _, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    return "" if code == 0 else errno.errorcode.get(code, f"status {code}")


def _enter_namespaces() -> None:
    flags = libc.CLONE_NEWNS | libc.CLONE_NEWPID | libc.CLONE_NEWNET | libc.CLONE_NEWIPC | libc.CLONE_NEWUTS
    libc.unshare(libc.CLONE_NEWUSER | flags | libc.CLONE_NEWCGROUP)
    libc.sethostname("doctor")  # some security modules let one in, and take every right away there


def _namespaces() -> str:
    problem = in_child(_enter_namespaces)
    return f"a process gets none of its own ({problem})" if problem else ""


_KERNEL = f"Linux {_LEAST} or later; in a container, a seccomp profile that allows it"

NEEDS = (
    Need(
        name="namespaces",
        since="4.6",
        problem=_namespaces,
        fix="set user.max_user_namespaces (and kernel.unprivileged_userns_clone where it exists) above 0, and"
        " kernel.apparmor_restrict_unprivileged_userns (where it exists) to 0; in a container, allow unshare and mount",
    ),
    Need(name="clone3", since="5.7", problem=_calls(clone3=(None, 0)), fix=_KERNEL),
    Need(
        name="pidfd",
        since="5.6",
        problem=_calls(pidfd_send_signal=(-1, 0, None, 0), pidfd_open=(-1, 0), pidfd_getfd=(-1, 0, 0)),
        fix=_KERNEL,
    ),
    Need(name="close_range", since="5.9", problem=_calls(close_range=(_ALL, 0, 0)), fix=_KERNEL),
    Need(
        name="mount api",
        since=_LEAST,
        problem=_calls(open_tree=(-1, "", _ALL), move_mount=(-1, "", -1, "", _ALL), mount_setattr=(-1, "", 0, None, 0)),
        fix=_KERNEL,
    ),
)
"""All of them. clone3's is the kernel that knows CLONE_INTO_CGROUP, pidfd's the one that knows pidfd_getfd."""


def lacking() -> Need | None:
    """The first that is missing. Forks: call it from a process without threads."""
    return next((one for one in NEEDS if one.problem()), None)
