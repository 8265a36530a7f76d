"""Process 1 of a sandbox, in Python: follows the recipe, starts the command, reaps, ends with it."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import struct
from collections.abc import Sequence
from typing import Any, NoReturn

from clawback.enforcement.kernel import libc
from clawback.enforcement.sandbox import restrict, wire
from clawback.enforcement.sandbox.follow import Follower
from clawback.enforcement.sandbox.job import Restrictions
from clawback.enforcement.sandbox.recipe import Fields, Op

__all__ = ["EXIT", "apply_restrictions", "run"]

EXIT = struct.Struct("BB")
"""The one thing the init says at the end: exit status and signal. Fixed size, for an agent may have taken it over."""

_PR_SET_NAME = 15
# What is ignored, by Python or by whoever started the core, stays ignored across an exec.
_DEFAULT = tuple(signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP})
_FORWARDED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2)


def apply_restrictions(
    restrictions: Restrictions, escalating: restrict.Escalating = restrict.Escalating.UNHEARD
) -> None:
    """Put this thread under what an agent's are under, for good. The bounding set is gone before."""
    parts = restrict.begin(""), restrict.rules("", restrictions), restrict.give_up(restrictions, escalating)
    Follower().follow(b"".join(parts))


def _spawn(path: str, command: list[str], environment: dict[str, str], stdio: Sequence[int]) -> int:
    """Start the command in a session of its own with the given standard descriptors and no others."""
    os.environ.clear()
    os.environ["PATH"] = path  # where posix_spawnp searches
    actions = [(os.POSIX_SPAWN_DUP2, fd, number) for number, fd in enumerate(stdio)]
    return os.posix_spawnp(
        command[0], command, environment, file_actions=actions, setsid=True, setsigdef=_DEFAULT, setsigmask=()
    )


def _woken() -> int:
    """A descriptor that can be read from once a signal with a handler has come: made before system calls are filtered.

    Waiting for children alone would sleep through a signal that comes just before: Python runs handlers between its own
    instructions.
    """
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    return reader


def _reap(main: int, woken: int) -> tuple[int, int]:
    """Reap until the command has ended; (exit status, signal)."""

    def forward(number: int, _frame: object) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(main, number)

    for forwarded in _FORWARDED:
        signal.signal(forwarded, forward)
    signal.signal(signal.SIGCHLD, lambda _number, _frame: None)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _FORWARDED)  # what came meanwhile is forwarded now
    while True:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if pid == main:
            break
        if not pid:
            os.read(woken, 4096)
    if os.WIFSIGNALED(status):
        return 128 + os.WTERMSIG(status), os.WTERMSIG(status)
    return os.WEXITSTATUS(status), 0


class _First:
    def __init__(self, shim: socket.socket, fds: Sequence[int]) -> None:
        self._shim, self._signals = shim, _woken()
        self._cage = Follower(fds, {Op.WAIT: self._wait, Op.READY: self._ready})
        self._is_ready = False

    def _wait(self, _fields: Fields) -> None:
        wire.receive_bytes(self._shim)

    def _ready(self, _fields: Fields) -> None:
        listener = self._cage.listener
        if listener is None:
            raise ValueError("a recipe without a gateway socket")
        wire.send(self._shim, {}, [listener.fileno()])
        listener.close()
        self._is_ready = True

    def live(self, cage: bytes) -> int:
        """From the first operation to the command's end; its exit status."""
        self._cage.follow(cage)
        if not self._is_ready:
            raise ValueError("a cage that is never ready")
        for fd in self._cage.fds:
            os.close(fd)
        job, fds = wire.receive_bytes(self._shim)
        self._cage.fds = fds
        self._cage.others[Op.EXEC] = self._exec
        self._main = 0
        self._cage.follow(job)
        if not self._main:
            raise ValueError("a job without a command")
        status, by_signal = _reap(self._main, self._signals)
        self._shim.sendmsg([EXIT.pack(status & 0xFF, by_signal)], [], socket.MSG_NOSIGNAL | socket.MSG_DONTWAIT)
        return status & 0xFF

    def _exec(self, fields: Fields) -> None:
        path, command, pairs = fields.text(), fields.texts(), fields.texts()
        environment = dict(pair.split("=", 1) for pair in pairs)
        seen, held = self._cage, [self._cage.held] if self._cage.held >= 0 else []
        wire.send(self._shim, {"root": seen.root, "port": seen.port, "canaries": seen.canaries}, held)
        for fd in held:
            os.close(fd)  # the shim alone keeps it: whoever takes this process over finds no listener in it
        wire.receive_bytes(self._shim)  # what holds has been observed from outside: the command may start
        # What a first process neither handles nor blocks, the kernel throws away.
        signal.pthread_sigmask(signal.SIG_BLOCK, _FORWARDED)
        self._main = _spawn(path, command, environment, seen.fds[:3])
        wire.send(self._shim, {"main": self._main})
        for fd in seen.fds:
            os.close(fd)


def run(shim: socket.socket, cage: bytes, fds: Sequence[int]) -> NoReturn:
    """The whole life of process 1. Any failure before the command starts is told to the shim and ends the sandbox."""
    status = 70
    try:
        libc.prctl(_PR_SET_NAME, "clawback-init")
        os.umask(0o022)
        status = _First(shim, fds).live(cage)
    except wire.Closed:
        status = 0
    except OSError as error:
        _tell(shim, {"error": wire.words(error), "errno": error.errno})
    except Exception as error:
        _tell(shim, {"error": f"{type(error).__name__}: {error}", "errno": 0})
    finally:
        os._exit(status)


def _tell(shim: socket.socket, message: dict[str, Any]) -> None:
    with contextlib.suppress(OSError):
        wire.send(shim, message)
