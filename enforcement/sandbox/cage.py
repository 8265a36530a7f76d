"""A sandbox without a command: namespaces, groups, id maps, the base tree, and a first process that waits."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import signal
import socket
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clawback.enforcement.kernel import cgroups, libc, mounts, namespaces
from clawback.enforcement.sandbox import door, init, layers, tree, wire
from clawback.enforcement.sandbox.escalated import Escalation
from clawback.enforcement.sandbox.files import start_ticks
from clawback.enforcement.sandbox.folder import Folder
from clawback.enforcement.sandbox.job import INSIDE_ID, REHEARSAL
from clawback.enforcement.sandbox.output import Output
from clawback.enforcement.sandbox.record import Sandbox
from clawback.model import Enforcement

__all__ = ["Cage", "Host", "destroy", "hand_over", "make", "receive"]

_NAMESPACES = (
    libc.CLONE_NEWUSER
    | libc.CLONE_NEWNS
    | libc.CLONE_NEWPID
    | libc.CLONE_NEWNET
    | libc.CLONE_NEWIPC
    | libc.CLONE_NEWUTS
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """What is the same for every sandbox of this core."""

    hierarchies: cgroups.Hierarchies
    group: str
    mounts: bool  # the right to mount in the namespace outside
    spares: Path
    namespaces: dict[str, int]


@dataclass(slots=True, kw_only=True)
class Cage:
    """One sandbox: `init` is the socket to its first process `pid`, `listener` the gateway's socket inside.

    `namespaces` hold its mount and network namespaces open, so that taking them down, which the kernel waits for, does
    not come between the last process's end and the word of it.
    """

    pid: int
    pidfd: int
    ticks: int
    namespaces: list[int]
    init: socket.socket
    listener: int
    leaf: cgroups.Leaf
    uid: int
    folder: Folder
    door: socket.socket
    layers: dict[str, Enforcement]
    escalation: Escalation | None = None


def receive(sock: socket.socket) -> tuple[dict[str, Any], list[int]]:
    """The first process's next word; what it failed with becomes an `OSError` here."""
    try:
        message, fds = wire.receive(sock)
    except (wire.Closed, ConnectionResetError):
        raise OSError(errno.ECHILD, "the sandbox's first process died while it was being set up") from None
    if "error" in message:
        raise OSError(message["errno"], message["error"])
    return message, fds


def _keep_only(*fds: int) -> None:
    """Close every descriptor from 3 on but these."""
    first = 3
    for fd in sorted(fds):
        libc.close_range(first, fd - 1)
        first = fd + 1
    libc.close_range(first)


def _begin(host: Host, leaf: cgroups.Leaf) -> tuple[int, socket.socket]:
    """The first process, in its namespaces and groups: its pid and the socket to it."""
    ours, theirs = socket.socketpair()
    prepare = init.Prepare(
        base=tree.open_base() if host.mounts else [],
        groups=[os.open(f"{path}/tasks", os.O_WRONLY | os.O_CLOEXEC) for path in leaf.controllers.values()],
    )
    group = os.open(leaf.unified, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC) if leaf.unified else None
    try:
        pid = libc.clone3(_NAMESPACES, cgroup_fd=group)
        if pid == 0:
            _keep_only(theirs.fileno(), *prepare.fds)
            init.run(theirs, prepare)
    finally:
        theirs.close()
        for fd in [*prepare.fds, *([] if group is None else [group])]:
            os.close(fd)
    return pid, ours


def make(host: Host, *, uid: int, name: str, spare: bool) -> Cage:
    """A finished cage and how much of it is seen to hold. `OSError` where there can be none; then nothing is left."""
    leaf = cgroups.make_leaf(host.hierarchies, host.group, name)
    pid, sock = _begin(host, leaf)
    folder = None
    try:
        folder = Folder(host.spares, name)
        gid = os.getgid() if uid == os.getuid() else uid  # an id of its own, or ours: then our group too
        namespaces.write_maps(pid, inside=INSIDE_ID, uid=uid, gid=gid)
        wire.send(sock, {})
        _, (listener,) = receive(sock)
        cage = Cage(
            pid=pid,
            pidfd=os.pidfd_open(pid),
            ticks=start_ticks(pid),
            namespaces=[os.open(f"/proc/{pid}/ns/{kind}", os.O_RDONLY | os.O_CLOEXEC) for kind in ("mnt", "net")],
            init=sock,
            listener=listener,
            leaf=leaf,
            uid=uid,
            folder=folder,
            door=door.bind(folder.path),
            layers=layers.observe_cage(pid, leaf=leaf, own=host.namespaces),
        )
        if spare:
            _rehearse(host, cage)
    except BaseException:
        _destroy(pid, leaf, folder)
        raise
    return cage


def destroy(cage: Cage) -> None:
    """End the sandbox and leave nothing of it behind."""
    _destroy(cage.pid, cage.leaf, cage.folder)


def _destroy(pid: int, leaf: cgroups.Leaf, folder: Folder | None) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, 0)
    cgroups.remove_leaf(leaf)
    if folder:
        folder.remove()


def _bind_flags(*, writable: bool) -> int:
    return mounts.MS_NOSUID | mounts.MS_NODEV | (0 if writable else mounts.MS_RDONLY)


def _own_writable(tree_fd: int, uid: int) -> None:
    """Give a writable folder of root's to the agent, which could not write there otherwise; not what lies in it.

    By the descriptor of what is shown: a path could lead elsewhere by now.
    """
    if os.fstat(tree_fd).st_uid == 0:
        os.chown(f"/proc/self/fd/{tree_fd}", uid, uid)


def hand_over(host: Host, cage: Cage, message: dict[str, Any], stdio: list[int]) -> None:
    """Send the first process its job, with the mounts to show and its standard descriptors, which are closed here."""
    job = message["job"]
    binds = [(path, _bind_flags(writable=writable)) for path, writable in job["binds"]]
    trees: list[int] = []
    try:
        if host.mounts:
            for path, writable in job["binds"]:
                trees.append(mounts.detached(path, flags=_bind_flags(writable=writable)))
                if writable:
                    _own_writable(trees[-1], cage.uid)
        order = {"job": job, "secrets": message["secrets"], "binds": binds}
        wire.send(cage.init, order, [*stdio, *trees])
    finally:
        for fd in [*stdio, *trees]:
            os.close(fd)


def _rehearse(host: Host, cage: Cage) -> None:
    """Have both processes go through a launch's motions while there is time.

    After a fork, the first touch of every page costs a fault and mostly a copy: half of what a launch would take.
    """
    output = Output(os.dup(1))
    stdio = [os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC), output.writer, os.dup(output.writer)]
    hand_over(host, cage, json.loads(wire.encode({"job": REHEARSAL, "secrets": {}})), stdio)
    report, _ = receive(cage.init)
    layers.observe_restricted(cage.pid, uid=0, limits={}, report=report, host_uid=0, cage=cage.layers)
    cgroups.set_limits(cgroups.Leaf(), memory=1, cpu=1, processes=1)
    record = Sandbox(
        agent="", instance="", pid=0, start_ticks=cage.ticks, shim_pid=0, shim_start_ticks=start_ticks(os.getpid()),
        uid=0, cgroup="", folder="", policy="", policy_version=0, command=(), started_ns=time.time_ns(),
        layers=cage.layers,
    )  # fmt: skip
    ours, theirs = socket.socketpair()
    with ours, theirs:
        wire.send(ours, {"prepared": wire.encode(record)}, [cage.listener])
        _, fds = wire.receive(theirs)
    for fd in fds:
        os.close(fd)
    output.finish()
