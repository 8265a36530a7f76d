"""Which kernel features this host gives, found by using each, and what is lost without it.

A feature's presence in the kernel's configuration proves nothing: a container, a security module or a missing right may
refuse it all the same. Every check here tries the thing itself, in a child process where it would change this one, and
undoes what it made.
"""

from __future__ import annotations

import errno
import os
import platform
import signal
import socket
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from clawback.enforcement.kernel import cgroups, libc, namespaces, notify
from clawback.enforcement.kernel.audit import AuditReader
from clawback.enforcement.kernel.call_trace import CallTrace
from clawback.enforcement.kernel.canary_watch import CanaryWatch
from clawback.enforcement.kernel.needs import NEEDS, in_child
from clawback.enforcement.kernel.netlink import NETLINK_SOCK_DIAG
from clawback.enforcement.kernel.process_events import ProcessEvents
from clawback.enforcement.kernel.ptrace import SUPPORTED, Tracee
from clawback.enforcement.kernel.seccomp import ALLOW, assemble, install

__all__ = ["Feature", "probe"]

_LANDLOCK_CREATE_RULESET_VERSION = 1
_PR_SET_NO_NEW_PRIVS = 38
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


class Closable(Protocol):
    """What is opened to see whether it opens."""

    def close(self) -> None:
        """Let go."""
        ...


def _needed() -> tuple[Feature, ...]:
    found = []
    for need in NEEDS:
        problem = need.problem()
        found.append(
            Feature(
                name=need.name,
                ok=not problem,
                found=problem or f"there, as in Linux {need.since} and later",
                lost="no sandbox can be started",
                fix=need.fix,
                required=True,
            )
        )
    return tuple(found)


def _install(*, listening: bool) -> None:
    libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    program = assemble({}, ALLOW)
    if listening:
        notify.install(program)
    else:
        install(program)


def _seccomp() -> Feature:
    problem = in_child(lambda: _install(listening=False))
    return Feature(
        name="seccomp",
        ok=not problem,
        found=problem or "filters",
        lost="no sandbox can be started, and nothing can be sealed",
        fix="a kernel with CONFIG_SECCOMP_FILTER",
        required=True,
    )


def _escalation() -> Feature:
    problem = in_child(lambda: _install(listening=True))
    return Feature(
        name="user notification",
        ok=not problem,
        found=problem or "a filter can have a listener",
        lost="agents whose policy escalates system calls do not start",
        fix="Linux 5.0 or later, and nothing above the core that listens already (EBUSY), as some containers do",
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


@dataclass(frozen=True, slots=True)
class _Groups:
    """What came of making groups: `frozen` and `limited` (controllers), or the reason in words."""

    frozen: bool
    killable: bool
    freezing: str
    limited: frozenset[str]


def _groups() -> _Groups:
    """Make a group as an agent's is made, wherever there is a hierarchy; freeze it and limit it, empty as it is."""
    roots, name = cgroups.discover(), f"clawback-doctor-{os.getpid()}"
    leaf = cgroups.make_leaf(roots, name, "trial")
    try:
        # One value each, which no process is there to feel.
        done = cgroups.set_limits(leaf, memory=1 << 28, cpu=1.0, processes=16)
        frozen = killable = False
        if leaf.unified:
            Path(leaf.unified, "cgroup.freeze").write_text("1")
            frozen = "frozen 1" in Path(leaf.unified, "cgroup.events").read_text()
            killable = Path(leaf.unified, "cgroup.kill").exists()
    finally:
        cgroups.remove_leaf(leaf)
        cgroups.remove_parent(roots, name)
    freezing = f"cgroup v2 at {roots.unified}" if roots.unified else "no cgroup v2 hierarchy"
    if roots.unified and not leaf.unified:
        freezing = f"no group may be made under {roots.unified}"
    return _Groups(frozen, killable, freezing, frozenset(controller for controller, held in done.items() if held))


def _freeze(groups: _Groups) -> Feature:
    return Feature(
        name="cgroup freeze and kill",
        ok=groups.frozen and groups.killable,
        found=groups.freezing + (", without cgroup.kill" if groups.frozen and not groups.killable else ""),
        lost="without the freezer, freeze is by signals and partial; without cgroup.kill, stop is by the pid namespace",
        fix="run the core as root, with cgroup v2 mounted and writable; Linux 5.14 or later",
    )


def _limits(groups: _Groups) -> Feature:
    missing = [name for name in ("pids", "memory", "cpu") if name not in groups.limited]
    return Feature(
        name="cgroup limits",
        ok=not missing,
        found=f"no {', '.join(missing)}" if missing else "pids, memory, cpu",
        lost="limits of the policy are not enforced, or by rlimits alone; restrict is partial",
        fix="run the core as root on a kernel with these controllers",
    )


def _identities(uid: int) -> Feature:
    given = namespaces.gives_ids(uid)
    return Feature(
        name="user ids",
        ok=given,
        found=f"one for each agent, from {uid}" if given else f"{uid} may not be given away",
        lost="agents, the core and the gateway share one user id; only namespaces and filters part them",
        fix="run the core as root, in a user namespace that maps core.uid_base and 65,536 ids after it",
    )


def _opens(name: str, attempt: Callable[[], Closable], *, found: str, lost: str, fix: str) -> Feature:
    """A source of telemetry, opened as the core opens it."""
    try:
        attempt().close()
        problem = ""
    except OSError as error:
        problem = errno.errorcode.get(error.errno or 0, "refused")
    return Feature(name=name, ok=not problem, found=problem or found, lost=lost, fix=fix)


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


def _seize(pid: int) -> None:
    Tracee(pid, pid)  # it goes free with the end of this process


def _trace() -> None:
    """Seize a process of a user namespace below ours, from one that is not its parent: as agents are sealed."""
    read, write = os.pipe()
    agent = os.fork()
    if agent == 0:
        try:
            libc.unshare(libc.CLONE_NEWUSER)
            os.write(write, b"x")
            signal.pause()
        finally:
            os._exit(0)
    os.close(write)
    try:
        # Empty where it could have no namespace: there is nobody to try it on.
        problem = in_child(lambda: _seize(agent)) if os.read(read, 1) else "ESRCH"
    finally:
        os.close(read)
        os.kill(agent, signal.SIGKILL)
        os.waitpid(agent, 0)
    if problem:
        raise OSError(getattr(errno, problem, errno.EPERM), problem)


def _ptrace() -> Feature:
    path = Path("/proc/sys/kernel/yama/ptrace_scope")
    scope = f", scope {path.read_text().strip()}" if path.exists() else ""
    problem = "" if SUPPORTED else f"not written for {platform.machine()}"
    if SUPPORTED:
        problem = in_child(_trace)
    return Feature(
        name="ptrace",
        ok=not problem,
        found=(problem or "agents can be seized") + scope,
        lost="a running agent cannot be sealed; it stays frozen",
        fix="sysctl kernel.yama.ptrace_scope below 3; in a container, allow it; x86-64, or arm64 (not yet run there)",
    )


def probe(uid: int = 1_900_000) -> tuple[Feature, ...]:
    """All checks; a few milliseconds. `uid` is the first that agents are to get (`core.uid_base`).

    Must be called from a process without threads, because some fork.
    """
    groups = _groups()
    return (
        *_needed(),
        _seccomp(),
        _escalation(),
        _landlock(),
        _identities(uid),
        _freeze(groups),
        _limits(groups),
        _ptrace(),
        _logged(),
        _opens(
            "audit",
            lambda: AuditReader(types=frozenset()),
            found="readable",
            lost="denied system calls are not reported",
            fix="run the core as root in the host's own namespaces",
        ),
        _opens(
            "call tracing",
            lambda: CallTrace(range(uid, uid + 1)),  # loaded, and attached to nothing
            found="can be loaded",
            lost="registers of denied calls, and what Landlock or a missing route refused, are not reported",
            fix="run the core as root on x86-64, Linux 5.8 or later; in a container, allow bpf",
        ),
        _opens(
            "sock_diag",
            lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_SOCK_DIAG),
            found="there",
            lost="isolation is partial: sockets made before are neither listed nor destroyed; no responder is let in",
            fix="a kernel with CONFIG_INET_DIAG, CONFIG_INET_DIAG_DESTROY and CONFIG_UNIX_DIAG",
        ),
        _opens(
            "process events",
            ProcessEvents,
            found="readable",
            lost="starts and ends of an agent's processes are not reported",
            fix="run the core in the host's own user, pid and network namespaces, CONFIG_PROC_EVENTS; before Linux 6.6"
            " as root",
        ),
        _opens(
            "fanotify",
            CanaryWatch,
            found="permission events",
            lost="canary files are not watched",
            fix="run the core as root on a kernel with CONFIG_FANOTIFY_ACCESS_PERMISSIONS",
        ),
    )
