"""Which kernel features this host gives, found by using each, and what is lost without it.

A feature's presence in the kernel's configuration proves nothing: a container, a security module or a missing right may
refuse it all the same. Every check here tries the thing itself, in a child process where it would change this one, and
undoes what it made.
"""

from __future__ import annotations

import ctypes
import errno
import os
import socket
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from clawback.enforcement.kernel import libc

__all__ = ["Feature", "probe"]

_LANDLOCK_CREATE_RULESET_VERSION = 1
_SECCOMP_GET_ACTION_AVAIL = 2
_SECCOMP_RET_USER_NOTIF = 0x7FC00000
_NETLINK_AUDIT, _NETLINK_CONNECTOR = 9, 11
_AUDIT_GROUP_READLOG, _CN_IDX_PROC = 1, 1
_FAN_CLASS_CONTENT, _FAN_CLOEXEC = 4, 1
_LANDLOCK_NETWORK_ABI = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Feature:
    """One check. `found` is what was seen; `lost` and `fix` matter where it is not `ok`; without a `required` one no
    sandbox starts.
    """

    name: str
    ok: bool
    found: str
    lost: str
    fix: str
    required: bool = False


def _in_child(attempt: Callable[[], None]) -> str:
    """Run in a forked child; the empty string, or the name of the errno it failed with."""
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


def _namespaces() -> Feature:
    flags = libc.CLONE_NEWNS | libc.CLONE_NEWPID | libc.CLONE_NEWNET | libc.CLONE_NEWIPC | libc.CLONE_NEWUTS
    problem = _in_child(lambda: libc.unshare(libc.CLONE_NEWUSER | flags | libc.CLONE_NEWCGROUP))
    return Feature(
        name="namespaces",
        ok=not problem,
        found=problem or "user, mount, pid, net, ipc, uts, cgroup",
        lost="no sandbox can be started",
        fix="set user.max_user_namespaces (and kernel.unprivileged_userns_clone where it exists) above 0",
        required=True,
    )


def _seccomp() -> Feature:
    action = ctypes.c_uint32(_SECCOMP_RET_USER_NOTIF)
    try:
        libc.syscall("seccomp", _SECCOMP_GET_ACTION_AVAIL, 0, ctypes.addressof(action))
        problem = ""
    except OSError as error:
        problem = errno.errorcode.get(error.errno or 0, "refused")
    return Feature(
        name="seccomp",
        ok=not problem,
        found=problem or "filters and user notification",
        lost="no sandbox can be started, and nothing can be sealed",
        fix="a kernel with CONFIG_SECCOMP_FILTER, 5.0 or later",
        required=True,
    )


def _landlock() -> Feature:
    try:
        abi = libc.syscall("landlock_create_ruleset", None, 0, _LANDLOCK_CREATE_RULESET_VERSION)
    except OSError:
        abi = 0
    return Feature(
        name="landlock",
        ok=abi >= _LANDLOCK_NETWORK_ABI,
        found=f"ABI {abi}" if abi else "absent",
        lost="files are kept out by mounts alone; TCP by the network namespace alone",
        fix="add landlock to the lsm= boot parameter; 6.7 or later for TCP rules",
    )


def _cgroup_roots() -> tuple[str, dict[str, str]]:
    unified = ""
    controllers: dict[str, str] = {}
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        left, right = line.split(" - ")
        kind, _source, options = right.split()[:3]
        where = left.split()[4]
        if kind == "cgroup2":
            unified = where
        elif kind == "cgroup":
            controllers |= {name: where for name in options.split(",") if name in ("pids", "memory", "cpu")}
    return unified, controllers


def _freeze(unified: str) -> Feature:
    found = "no cgroup v2 hierarchy"
    ok = False
    if unified:
        trial = Path(unified) / f"clawback-doctor-{os.getpid()}"
        try:
            trial.mkdir()
            try:
                (trial / "cgroup.freeze").write_text("1")
                ok, found = True, f"cgroup v2 at {unified}"
            finally:
                trial.rmdir()
        except OSError as error:
            found = f"{unified}: {error.strerror}"
    return Feature(
        name="cgroup freeze and kill",
        ok=ok,
        found=found,
        lost="freeze is by signals and partial; stop is by the pid namespace",
        fix="run the core as root, or delegate a cgroup to it",
    )


def _limits(unified: str, controllers: dict[str, str]) -> Feature:
    have = set(controllers)
    if unified:
        have |= set((Path(unified) / "cgroup.controllers").read_text().split())
    missing = {"pids", "memory", "cpu"} - have
    writable = os.geteuid() == 0
    return Feature(
        name="cgroup limits",
        ok=not missing and writable,
        found="pids, memory, cpu" if not missing else f"no {', '.join(sorted(missing))}",
        lost="limits of the policy are not enforced, or by rlimits alone",
        fix="run the core as root on a kernel with these controllers",
    )


def _listens(name: str, protocol: int, group: int, kind: int, lost: str, fix: str) -> Feature:
    try:
        with socket.socket(socket.AF_NETLINK, kind, protocol) as reader:
            reader.bind((0, group))
        problem = ""
    except OSError as error:
        problem = errno.errorcode.get(error.errno or 0, "refused")
    return Feature(name=name, ok=not problem, found=problem or "readable", lost=lost, fix=fix)


def _logged() -> Feature:
    path = Path("/proc/sys/kernel/seccomp/actions_logged")
    words = path.read_text().split() if path.exists() else []
    return Feature(
        name="seccomp logging",
        ok="errno" in words,
        found=" ".join(words) or "absent",
        lost="denied system calls are not reported",
        fix="sysctl kernel.seccomp.actions_logged with errno in it",
    )


def _fanotify() -> Feature:
    try:
        os.close(libc.syscall("fanotify_init", _FAN_CLASS_CONTENT | _FAN_CLOEXEC, os.O_RDONLY))
        problem = ""
    except OSError as error:
        problem = errno.errorcode.get(error.errno or 0, "refused")
    return Feature(
        name="fanotify",
        ok=not problem,
        found=problem or "permission events",
        lost="canary files are not watched",
        fix="run the core as root on a kernel with CONFIG_FANOTIFY_ACCESS_PERMISSIONS",
    )


def _ptrace() -> Feature:
    path = Path("/proc/sys/kernel/yama/ptrace_scope")
    scope = int(path.read_text()) if path.exists() else 0
    return Feature(
        name="ptrace",
        ok=scope < (3 if os.geteuid() == 0 else 1),
        found=f"scope {scope}",
        lost="a running agent cannot be sealed; it stays frozen",
        fix="sysctl kernel.yama.ptrace_scope below 3 (as root), 0 (rootless)",
    )


def probe() -> tuple[Feature, ...]:
    """All checks; a few milliseconds. Must be called from a process without threads, because some fork."""
    unified, controllers = _cgroup_roots()
    return (
        _namespaces(),
        _seccomp(),
        _landlock(),
        _freeze(unified),
        _limits(unified, controllers),
        _ptrace(),
        _logged(),
        _listens(
            "audit",
            _NETLINK_AUDIT,
            _AUDIT_GROUP_READLOG,
            socket.SOCK_RAW,
            "denied system calls are not reported",
            "run the core as root in the host's own namespaces",
        ),
        _listens(
            "process events",
            _NETLINK_CONNECTOR,
            _CN_IDX_PROC,
            socket.SOCK_DGRAM,
            "starts and ends of an agent's processes are not reported",
            "run the core as root in the host's own namespaces, CONFIG_PROC_EVENTS",
        ),
        _fanotify(),
    )
