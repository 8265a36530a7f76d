"""The parent of one sandbox: makes it, outlives the core, reaps it, keeps its gateway socket, writes how it ended."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import resource
import select
import shutil
import signal
import socket
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from clawback.enforcement.kernel import cgroups, libc, mounts, namespaces
from clawback.enforcement.sandbox import init, layers, tree, wire
from clawback.enforcement.sandbox.files import start_ticks, write_atomically, write_new
from clawback.enforcement.sandbox.job import INSIDE_ID
from clawback.enforcement.sandbox.output import Output
from clawback.enforcement.sandbox.record import Sandbox
from clawback.model import Enforcement

__all__ = ["Host", "serve"]

_NAMESPACES = (
    libc.CLONE_NEWUSER
    | libc.CLONE_NEWNS
    | libc.CLONE_NEWPID
    | libc.CLONE_NEWNET
    | libc.CLONE_NEWIPC
    | libc.CLONE_NEWUTS
)
_PR_SET_NAME = 15
_STOP_TIMEOUT = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """What is the same for every sandbox of this core."""

    hierarchies: cgroups.Hierarchies
    group: str
    mounts: bool  # the right to mount in the namespace outside
    spares: Path
    namespaces: dict[str, int]


@dataclass(slots=True, kw_only=True)
class _Cage:
    """A sandbox without a command: its init waits."""

    pid: int
    init: socket.socket
    listener: int
    leaf: cgroups.Leaf
    uid: int
    folder: Path
    layers: dict[str, Enforcement]
    door: socket.socket | None = None


@dataclass(slots=True, kw_only=True)
class _Running:
    """A sandbox whose command has started."""

    record: Sandbox
    output: Output | None


def _receive(sock: socket.socket) -> tuple[dict[str, Any], list[int]]:
    """The init's next word; what it failed with becomes an `OSError` here."""
    try:
        message, fds = wire.receive(sock)
    except (wire.Closed, ConnectionResetError):
        raise OSError(errno.ECHILD, "the sandbox's first process died while it was being set up") from None
    if "error" in message:
        raise OSError(message["errno"], message["error"])
    return message, fds


def _cage(host: Host, *, uid: int, name: str, spare: bool) -> _Cage:
    """Namespaces, groups, id maps and the base tree; and how much of them is seen to hold."""
    leaf = cgroups.make_leaf(host.hierarchies, host.group, name)
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
    cage = _Cage(pid=pid, init=ours, listener=-1, leaf=leaf, uid=uid, folder=host.spares / name, layers={})
    try:
        # Elsewhere until there is a command: what lies among the agents is an agent.
        cage.folder.mkdir(parents=True, mode=0o700)
        cage.door = _door(cage.folder)
        gid = os.getgid() if uid == os.getuid() else uid  # an id of its own, or ours: then our group too
        namespaces.write_maps(pid, inside=INSIDE_ID, uid=uid, gid=gid)
        wire.send(ours, {})
        _, (cage.listener,) = _receive(ours)
        cage.layers = layers.observe_cage(pid, leaf=leaf, own=host.namespaces)
        if spare:
            _rehearse(cage)
    except BaseException:
        _destroy(cage)
        raise
    return cage


def _keep_only(*fds: int) -> None:
    """Close every descriptor from 3 on but these."""
    first = 3
    for fd in sorted(fds):
        libc.close_range(first, fd - 1)
        first = fd + 1
    libc.close_range(first)


def _destroy(cage: _Cage) -> None:
    """End the sandbox and leave nothing of it behind."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(cage.pid, signal.SIGKILL)
    with contextlib.suppress(ChildProcessError):
        os.waitpid(cage.pid, 0)
    cgroups.remove_leaf(cage.leaf)
    shutil.rmtree(cage.folder, ignore_errors=True)


def _bind_flags(*, writable: bool) -> int:
    return mounts.MS_NOSUID | mounts.MS_NODEV | (0 if writable else mounts.MS_RDONLY)


def _own_writable(tree_fd: int, uid: int) -> None:
    """Give a writable folder of root's to the agent, which could not write there otherwise; not what lies in it.

    By the descriptor of what is shown: a path could lead elsewhere by now.
    """
    if os.fstat(tree_fd).st_uid == 0:
        os.chown(f"/proc/self/fd/{tree_fd}", uid, uid)


def _send_job(host: Host, cage: _Cage, message: dict[str, Any], stdio: list[int]) -> None:
    job = message["job"]
    binds = [(path, _bind_flags(writable=writable)) for path, writable in job["binds"]]
    trees: list[int] = []
    try:
        if host.mounts:
            for path, writable in job["binds"]:
                trees.append(mounts.detached(path, flags=_bind_flags(writable=writable)))
                if writable:
                    _own_writable(trees[-1], cage.uid)
        wire.send(cage.init, {"job": job, "secrets": message["secrets"], "binds": binds}, [*stdio, *trees])
    finally:
        for fd in [*stdio, *trees]:
            os.close(fd)


def _rehearse(cage: _Cage) -> None:
    """Go through a launch's motions while there is time: after a fork, the first touch of every page copies it."""
    nothing = {"landlock": 0, "landlock_files": "", "landlock_net": ""}
    layers.observe_restricted(cage.pid, uid=0, limits={}, report=nothing, host_uid=0, cage=cage.layers)
    ticks = start_ticks(cage.pid)
    record = Sandbox(
        agent="", instance="", pid=0, start_ticks=ticks, shim_pid=0, shim_start_ticks=ticks, uid=0, cgroup="",
        folder="", policy="", policy_version=0, command=(), started_ns=time.time_ns(), layers=cage.layers,
    )  # fmt: skip
    ours, theirs = socket.socketpair()
    with ours, theirs:
        wire.send(ours, asdict(replace(record, uid=1)), [cage.listener])
        _, fds = wire.receive(theirs)
    for fd in fds:
        os.close(fd)
    write_atomically(cage.folder / "rehearsal", "{}")
    (cage.folder / "rehearsal").unlink()


def _limit(cage: _Cage, job: dict[str, Any]) -> dict[str, bool]:
    return cgroups.set_limits(
        cage.leaf,
        memory=job["max_memory"],
        cpu=job["max_cpu"],
        # One more than the policy says, for the init.
        processes=None if job["max_processes"] is None else job["max_processes"] + 1,
    )


def _launch(host: Host, cage: _Cage, message: dict[str, Any], stdio: list[int], core: socket.socket) -> _Running:
    """Hand the command over, write down what there is, observe what holds, let it start.

    While the init works on the tree, this process does its own work: record, limits, folder.
    """
    job = message["job"]
    output = None
    if not stdio:
        output = Output()
        stdio = [os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC), output.writer, os.dup(output.writer)]
    _send_job(host, cage, message, stdio)
    if output:
        output.open(cage.folder / "output.log")
    limits = _limit(cage, job)
    record = Sandbox(
        agent=job["agent"],
        instance=job["instance"],
        pid=cage.pid,
        start_ticks=start_ticks(cage.pid),
        shim_pid=os.getpid(),
        shim_start_ticks=start_ticks(os.getpid()),
        uid=cage.uid,
        cgroup=cage.leaf.unified,
        folder=job["folder"],
        policy=job["policy"],
        policy_version=job["policy_version"],
        command=tuple(job["command"]),
        started_ns=time.time_ns(),
        controllers=cage.leaf.controllers,
        secrets=tuple(message["secrets"]),
    )
    # On disk before the command starts: an agent that nobody could find again must never run. The layers follow.
    given = job["restrictions"]
    _publish(cage, record, given | {"read": [*given["read"], *tree.bait(job["canaries"])]})
    report, _ = _receive(cage.init)
    seen = layers.observe_restricted(
        cage.pid, uid=cage.uid, limits=limits, report=report, host_uid=os.getuid(), cage=cage.layers
    )
    record = replace(record, canaries=tuple(report["canaries"]), layers=seen)
    if message.get("prepared"):
        _announce(core, record)
    wire.send(cage.init, {})
    _receive(cage.init)
    return _Running(record=record, output=output)


def _publish(cage: _Cage, record: Sandbox, restrictions: dict[str, Any]) -> None:
    """Move the folder, record in it, to its place among the agents: it appears there whole."""
    write_new(cage.folder / "agent.json", json.dumps(asdict(record)))
    write_new(cage.folder / "restrictions.json", json.dumps(restrictions))
    place = Path(record.folder)
    place.parent.mkdir(parents=True, exist_ok=True)
    cage.folder.rename(place)
    cage.folder = place


def _announce(core: socket.socket, record: Sandbox) -> None:
    """Have the core watch the sandbox before the agent's first instruction; without its word nothing starts."""
    wire.send(core, {"prepared": asdict(record)})
    try:
        wire.receive(core)
    except (wire.Closed, ConnectionResetError):
        raise OSError(errno.ECANCELED, "the core withdrew the launch") from None


def _door(folder: Path) -> socket.socket:
    """`shim.sock`, bound through its folder's descriptor: a socket's path may have 107 bytes at most."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        sock.bind(f"/proc/self/fd/{fd}/shim.sock")
        os.chmod("shim.sock", 0o600, dir_fd=fd)
    finally:
        os.close(fd)
    sock.listen(8)
    sock.setblocking(False)
    return sock


def _answer(door: socket.socket, listener: int) -> None:
    """Hand a copy of the gateway's listening socket to root or to our own user, to nobody else."""
    with contextlib.suppress(OSError):
        peer, _ = door.accept()
        with peer:
            credentials = peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
            if int.from_bytes(credentials[4:8], "little") in {0, os.getuid()}:
                peer.settimeout(1.0)
                wire.send(peer, {}, [listener])


def _exit_of(cage: _Cage) -> tuple[int, int]:
    """(exit status, signal) of the command, by the init's own word where it could still give it."""
    _, status = os.waitpid(cage.pid, 0)
    if os.WIFSIGNALED(status):
        return 128 + os.WTERMSIG(status), os.WTERMSIG(status)
    cage.init.setblocking(False)
    word = b""
    with contextlib.suppress(OSError):
        word = cage.init.recv(init.EXIT.size)
    if len(word) == init.EXIT.size:
        code, number = init.EXIT.unpack(word)
        return int(code), int(number)
    return os.WEXITSTATUS(status), 0


def _supervise(cage: _Cage, running: _Running, core: socket.socket) -> None:
    """Wait for the sandbox's end, serving its listener and keeping its output meanwhile."""
    record, output, door = running.record, running.output, cage.door
    assert door is not None  # noqa: S101 - every finished cage has one
    pidfd = os.pidfd_open(cage.pid)
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    poll.register(door, select.POLLIN)
    if output:
        poll.register(output.reader, select.POLLIN)
    ended = False
    while not ended:
        for fd, _event in poll.poll():
            if fd == pidfd:
                ended = True
            elif fd == door.fileno():
                _answer(door, cage.listener)
            elif output and not output.copy():
                poll.unregister(output.reader)
    dropped = output.finish() if output else 0
    code, number = _exit_of(cage)
    ending = {"status": code, "signal": number, "ended_ns": time.time_ns(), "output_dropped": dropped}
    write_atomically(Path(record.folder, "exit.json"), json.dumps(ending))
    with contextlib.suppress(OSError):
        wire.send(core, {"exit": ending})  # the core may be long gone
    door.close()
    with contextlib.suppress(FileNotFoundError):
        Path(record.folder, "shim.sock").unlink()
    cgroups.remove_leaf(cage.leaf)


def serve(host: Host, core: socket.socket, *, uid: int, name: str, spare: bool) -> None:
    """Make a sandbox, wait for its command, see it through. Without a command the sandbox goes when the core does."""
    libc.prctl(_PR_SET_NAME, "clawback-shim")
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    try:
        cage = _cage(host, uid=uid, name=name, spare=spare)
    except OSError as error:
        with contextlib.suppress(wire.Closed, OSError):
            wire.receive(core)
            wire.send(core, {"error": str(error), "stage": "create", "errno": error.errno})
        return
    try:
        wire.send(core, {"ready": cage.pid})
        message, stdio = wire.receive(core)
    except (wire.Closed, OSError):
        _destroy(cage)
        return
    try:
        running = _launch(host, cage, message, stdio, core)
    except OSError as error:
        _destroy(cage)
        with contextlib.suppress(OSError):
            wire.send(core, {"error": str(error), "stage": "launch", "errno": error.errno})
        return
    message.clear()
    with contextlib.suppress(OSError):
        wire.send(core, {"record": asdict(running.record)}, [cage.listener])
    write_atomically(cage.folder / "agent.json", json.dumps(asdict(running.record)))
    _supervise(cage, running, core)
