"""The parent of one sandbox: launches in it, outlives the core, reaps it, keeps its gateway socket, says its end."""

from __future__ import annotations

import contextlib
import errno
import os
import resource
import select
import socket
import time
from pathlib import Path
from typing import Any

from clawback.enforcement.kernel import cgroups, libc
from clawback.enforcement.sandbox import door, init, layers, tree, wire
from clawback.enforcement.sandbox.cage import Cage, Host, destroy, hand_over, make, receive
from clawback.enforcement.sandbox.escalated import Escalation
from clawback.enforcement.sandbox.files import start_ticks
from clawback.enforcement.sandbox.output import Output
from clawback.enforcement.sandbox.record import Sandbox
from clawback.model import Enforcement

__all__ = ["serve"]

_PR_SET_NAME = 15


def _limit(cage: Cage, job: dict[str, Any]) -> dict[str, bool]:
    return cgroups.set_limits(
        cage.leaf,
        memory=job["max_memory"],
        cpu=job["max_cpu"],
        # One more than the policy says, for the init.
        processes=None if job["max_processes"] is None else job["max_processes"] + 1,
    )


def _record(
    cage: Cage, message: dict[str, Any], canaries: list[str], seen: dict[str, Enforcement], shim_ticks: int
) -> Sandbox:
    job = message["job"]
    return Sandbox(
        agent=job["agent"],
        instance=job["instance"],
        pid=cage.pid,
        start_ticks=cage.ticks,
        shim_pid=os.getpid(),
        shim_start_ticks=shim_ticks,
        uid=cage.uid,
        cgroup=cage.leaf.unified,
        folder=job["folder"],
        policy=job["policy"],
        policy_version=job["policy_version"],
        command=tuple(job["command"]),
        started_ns=time.time_ns(),
        controllers=cage.leaf.controllers,
        secrets=tuple(message["secrets"]),
        canaries=tuple(canaries),
        layers=seen,
    )


def _launch(host: Host, cage: Cage, message: dict[str, Any], stdio: list[int], core: socket.socket) -> Output | None:
    """Hand the command over, observe what holds, write down what there is, let it start.

    While the init works on the tree, this process does its own work.
    """
    job = message["job"]
    output = None
    if not stdio:
        output = Output(cage.folder.output())
        stdio = [os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC), output.writer, os.dup(output.writer)]
    hand_over(host, cage, message, stdio)
    if not output:
        cage.folder.discard_output()
    limits = _limit(cage, job)
    given = job["restrictions"]
    cage.folder.restrictions(wire.encode(given | {"read": [*given["read"], *tree.bait(job["canaries"])]}))
    shim_ticks = start_ticks(os.getpid())
    report, listeners = receive(cage.init)
    # From here on whatever waits for the first process serves its held calls too, or both would wait for each other.
    cage.escalation = Escalation(listeners[0]) if listeners else None
    seen = layers.observe_restricted(
        cage.pid, uid=cage.uid, limits=limits, report=report, host_uid=os.getuid(), cage=cage.layers
    )
    if cage.escalation:
        seen["escalation"] = Enforcement.FULL
    record = _record(cage, message, report["canaries"], seen, shim_ticks)
    # On disk before the command starts: an agent that nobody could find again must never run.
    text = wire.encode(record)
    cage.folder.publish(text, Path(record.folder))
    wire.send(core, {"prepared": text})
    if message["prepared"]:
        _await_word(cage, core)
    wire.send(cage.init, {})
    _attend(cage, cage.init)
    receive(cage.init)
    return output


def _attend(cage: Cage, awaited: socket.socket) -> None:
    """Until `awaited` has something to read, serve who knocks and what is held."""
    while cage.escalation:
        poll = select.poll()
        for source in (awaited.fileno(), cage.door.fileno(), *cage.escalation.fds):
            poll.register(source, select.POLLIN)
        ready = {fd for fd, _event in poll.poll()}
        if awaited.fileno() in ready:
            return
        for fd in ready:
            _serve(cage, fd)


def _serve(cage: Cage, fd: int) -> None:
    """The door or the escalation is ready."""
    if fd == cage.door.fileno():
        door.answer(cage.door, cage.listener, cage.escalation)
    elif cage.escalation and not cage.escalation.ready(fd):
        cage.escalation.close()
        cage.escalation = None


def _await_word(cage: Cage, core: socket.socket) -> None:
    """The core watches the sandbox before the agent's first instruction; without its word nothing starts."""
    _attend(cage, core)
    try:
        wire.receive(core)
    except (wire.Closed, ConnectionResetError):
        raise OSError(errno.ECANCELED, "the core withdrew the launch") from None


def _exit_of(cage: Cage) -> tuple[int, int]:
    """(exit status, signal) of the command, by the init's own word where it could still give it."""
    _, status = os.waitpid(cage.pid, 0)
    if os.WIFSIGNALED(status):
        return 128 + os.WTERMSIG(status), os.WTERMSIG(status)
    word = b""
    with contextlib.suppress(OSError):
        word = cage.init.recv(init.EXIT.size, socket.MSG_DONTWAIT)
    if len(word) == init.EXIT.size:
        code, number = init.EXIT.unpack(word)
        return int(code), int(number)
    return os.WEXITSTATUS(status), 0


def _watch(cage: Cage, output: Output | None) -> None:
    """Serve the listener and keep the output until the init ends, which it does after all others inside."""
    reading = output is not None
    while True:
        poll = select.poll()
        escalated = cage.escalation.fds if cage.escalation else ()
        for source in (cage.pidfd, cage.door.fileno(), *escalated):
            poll.register(source, select.POLLIN)
        if output and reading:
            poll.register(output.reader, select.POLLIN)
        for fd, _event in poll.poll():
            if fd == cage.pidfd:
                return
            if fd == cage.door.fileno() or fd in escalated:
                _serve(cage, fd)
            elif output:
                reading = output.copy()


def _supervise(cage: Cage, output: Output | None, core: socket.socket) -> None:
    """See the sandbox through to its end, write down how it ended, say so, and take away what is left."""
    _watch(cage, output)
    dropped = output.finish() if output else 0
    code, number = _exit_of(cage)
    ending = {"status": code, "signal": number, "ended_ns": time.time_ns(), "output_dropped": dropped}
    cage.folder.end(wire.encode(ending))
    with contextlib.suppress(OSError):
        wire.send(core, {"exit": ending})  # the core may be long gone
    cage.door.close()
    if cage.escalation:
        cage.escalation.close()
    with contextlib.suppress(FileNotFoundError):
        (cage.folder.path / "shim.sock").unlink()
    for fd in cage.namespaces:
        os.close(fd)
    cgroups.remove_leaf(cage.leaf)


def serve(host: Host, core: socket.socket, *, uid: int, name: str, spare: bool) -> None:
    """Make a sandbox, wait for its command, see it through. Without a command the sandbox goes when the core does."""
    libc.prctl(_PR_SET_NAME, "clawback-shim")
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    try:
        cage = make(host, uid=uid, name=name, spare=spare)
    except OSError as error:
        with contextlib.suppress(wire.Closed, OSError):
            wire.receive(core)
            wire.send(core, {"error": str(error), "stage": "create", "errno": error.errno})
        return
    try:
        wire.send(core, {"ready": cage.pid})
        message, stdio = wire.receive(core)
    except (wire.Closed, OSError):
        destroy(cage)
        return
    try:
        output = _launch(host, cage, message, stdio, core)
    except OSError as error:
        destroy(cage)
        with contextlib.suppress(OSError):
            wire.send(core, {"error": str(error), "stage": "launch", "errno": error.errno})
        return
    message.clear()
    with contextlib.suppress(OSError):
        wire.send(core, {"started": cage.pid}, [cage.listener])
    _supervise(cage, output, core)
