"""The parent of one sandbox, in Python: makes it by a recipe, outlives the core, reaps it, says its end.

What `native/` does in C, in the same order and with the same words to the core.
"""

from __future__ import annotations

import contextlib
import errno
import os
import resource
import select
import signal
import socket
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from clawback.enforcement.kernel import capabilities, cgroups, libc
from clawback.enforcement.sandbox import door, init, wire
from clawback.enforcement.sandbox.escalated import Escalation
from clawback.enforcement.sandbox.output import Output
from clawback.enforcement.sandbox.recipe import CageHead, Fields

__all__ = ["serve"]

_PR_SET_NAME = 15
_FILES = ("shim.sock", "agent.json", "restrictions.json", "output.log", ".exit.json")


def _keep_only(*fds: int) -> None:
    """Close every descriptor from 3 on but these."""
    first = 3
    for fd in sorted(fds):
        libc.close_range(first, fd - 1)
        first = fd + 1
    libc.close_range(first)


def _put(pid: int, name: str, text: str) -> None:
    Path(f"/proc/{pid}/{name}").write_text(text)


class _Shim:
    def __init__(self, core: socket.socket, head: CageHead) -> None:
        self._core = core
        self._head = head
        self._pid = 0
        self._folder = -1
        self._output: Output | None = None
        self._escalation: Escalation | None = None

    # --- making ------------------------------------------------------------------------------------------------------

    def make(self, operations: bytes) -> None:
        """The first process in its namespaces, and its socket for the gateway."""
        head = self._head
        self._init, theirs = socket.socketpair()
        self._pid = libc.clone3(head.flags, cgroup_fd=None if head.group < 0 else head.group)
        if self._pid == 0:
            _keep_only(theirs.fileno(), *head.fds)
            init.run(theirs, operations, head.fds)
        theirs.close()
        for fd in (*head.fds, head.group):
            if fd >= 0:
                os.close(fd)
        self._pidfd = os.pidfd_open(self._pid)
        _put(self._pid, "setgroups", "deny")
        _put(self._pid, "uid_map", head.uid_map)
        _put(self._pid, "gid_map", head.gid_map)
        wire.send_bytes(self._init, b"")
        _, (self._listener,) = self._hear()
        # Held open: taking these down, which the kernel waits for, does not come between the last process's end and the
        # word of it.
        self._namespaces = [
            os.open(f"/proc/{self._pid}/ns/{kind}", os.O_RDONLY | os.O_CLOEXEC) for kind in ("mnt", "net")
        ]
        ready = wire.encode({"ready": self._pid, "shim": os.getpid()})
        wire.send_bytes(self._core, f'{ready[:-1]},"about":{head.about}}}'.encode())

    def _hear(self) -> tuple[dict[str, Any], list[int]]:
        """The first process's next word; what it failed with becomes an `OSError` here."""
        try:
            message, fds = wire.receive(self._init)
        except (wire.Closed, ConnectionResetError):
            raise OSError(errno.ECHILD, "the sandbox's first process died while it was being set up") from None
        if "error" in message:
            raise OSError(message["errno"], message["error"])
        return message, fds

    # --- the command -------------------------------------------------------------------------------------------------

    def launch(self, job: bytes, fds: Sequence[int]) -> None:
        """Hand the job over; have the core look at what holds and write it down; then let the command start."""
        fields = Fields(job)
        given = fields.number()
        self._folder, self._ending, *rest = fds
        if not given:
            self._output = Output(rest.pop(0))
            null = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
            rest = [null, self._output.writer, os.dup(self._output.writer), *rest]
        self._door = door.bind(self._folder)
        wire.send_bytes(self._init, fields.rest(), rest)
        for fd in rest:
            os.close(fd)
        report, held = self._hear()
        # From here on whoever waits for the first process serves its held calls, or both would wait for each other.
        self._escalation = Escalation(held[0]) if held else None
        wire.send(self._core, {"prepared": report | {"escalates": bool(held)}})
        self._attend(self._core)
        try:
            wire.receive_bytes(self._core)
        except (wire.Closed, ConnectionResetError):
            raise OSError(errno.ECANCELED, "the core withdrew the launch") from None
        wire.send_bytes(self._init, b"")
        self._attend(self._init)
        self._hear()

    def started(self) -> None:
        """Give up every right, for nothing that is left needs one; the core, if it is there, gets the listener."""
        capabilities.drop_all()
        capabilities.no_new_privileges()
        with contextlib.suppress(OSError):
            wire.send(self._core, {"started": self._pid}, [self._listener])

    def _attend(self, awaited: socket.socket) -> None:
        """Until `awaited` has something to read, serve who knocks and what is held."""
        while self._escalation:
            poll = select.poll()
            for source in (awaited.fileno(), self._door.fileno(), *self._escalation.fds):
                poll.register(source, select.POLLIN)
            ready = {fd for fd, _event in poll.poll()}
            if awaited.fileno() in ready:
                return
            for fd in ready:
                self._serve(fd)

    def _serve(self, fd: int) -> None:
        if fd == self._door.fileno():
            door.answer(self._door, self._listener, self._escalation)
        elif self._escalation and not self._escalation.ready(fd):
            self._escalation.close()
            self._escalation = None

    # --- the long part and the end -----------------------------------------------------------------------------------

    def watch(self) -> None:
        """Serve the door and keep the output until the init ends, which it does after all others inside."""
        reading = self._output is not None
        while True:
            poll = select.poll()
            escalated = self._escalation.fds if self._escalation else ()
            for source in (self._pidfd, self._door.fileno(), *escalated):
                poll.register(source, select.POLLIN)
            if self._output and reading:
                poll.register(self._output.reader, select.POLLIN)
            for fd, _event in poll.poll():
                if fd == self._pidfd:
                    return
                if fd == self._door.fileno() or fd in escalated:
                    self._serve(fd)
                elif self._output:
                    reading = self._output.copy()

    def _exit_of(self) -> tuple[int, int]:
        """(exit status, signal) of the command, by the init's own word where it could still give it."""
        _, status = os.waitpid(self._pid, 0)
        if os.WIFSIGNALED(status):
            return 128 + os.WTERMSIG(status), os.WTERMSIG(status)
        word = b""
        with contextlib.suppress(OSError):
            word = self._init.recv(init.EXIT.size, socket.MSG_DONTWAIT)
        if len(word) == init.EXIT.size:
            code, number = init.EXIT.unpack(word)
            return int(code), int(number)
        return os.WEXITSTATUS(status), 0

    def finish(self) -> None:
        """Write down how it ended, say so, and take away what is left."""
        dropped = self._output.finish() if self._output else 0
        code, number = self._exit_of()
        ending = {"status": code, "signal": number, "ended_ns": time.time_ns(), "output_dropped": dropped}
        os.write(self._ending, wire.encode(ending).encode())
        # Under its own name it says that the agent has ended: a reader sees all of it or none.
        os.rename(".exit.json", "exit.json", src_dir_fd=self._folder, dst_dir_fd=self._folder)
        with contextlib.suppress(OSError):
            wire.send(self._core, {"exit": ending})  # the core may be long gone
        with contextlib.suppress(FileNotFoundError):
            os.unlink("shim.sock", dir_fd=self._folder)
        self._remove_leaves()

    def _remove_leaves(self) -> None:
        for leaf in self._head.leaves:
            cgroups.remove_leaf(cgroups.Leaf(leaf), kill=False)

    def give_up(self) -> None:
        """End the sandbox and leave nothing of it behind."""
        if self._pid:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._pid, signal.SIGKILL)
            os.waitpid(self._pid, 0)
        self._remove_leaves()
        if self._folder >= 0:
            for name in _FILES:
                with contextlib.suppress(OSError):  # the core takes away what is left
                    os.unlink(name, dir_fd=self._folder)
            with contextlib.suppress(OSError):
                os.rmdir(os.readlink(f"/proc/self/fd/{self._folder}"))


def serve(core: socket.socket, cage: bytes) -> None:
    """Make a sandbox, wait for its command, see it through. Without a command the sandbox goes when the core does."""
    libc.prctl(_PR_SET_NAME, "clawback-shim")
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    os.umask(0o077)
    head, operations = CageHead.read(cage)
    shim = _Shim(core, head)
    stage = "create"
    try:
        shim.make(operations)
        try:
            job, fds = wire.receive_bytes(core)
        except (wire.Closed, ConnectionResetError):
            shim.give_up()
            return
        stage = "launch"
        shim.launch(job, fds)
    except (OSError, ValueError) as error:
        shim.give_up()
        number = error.errno if isinstance(error, OSError) else errno.EBADMSG
        with contextlib.suppress(OSError):
            wire.send(core, {"error": wire.words(error), "stage": stage, "errno": number})
        return
    del job
    shim.started()
    shim.watch()
    shim.finish()
