"""The supervisor's side of its hand inside a sandbox: made when first needed, asked without waiting, ended if late."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import socket
import time
from typing import Any

from clawback.enforcement.kernel import libc
from clawback.enforcement.sandbox import wire
from clawback.enforcement.sandbox.files import start_ticks
from clawback.enforcement.sandbox.record import Sandbox
from clawback.enforcement.supervise import inside

__all__ = ["SECONDS", "Hand", "Lost"]

SECONDS = 3.0
"""How long one request may take: a path on a file system that hangs holds up its own agent only, and not for ever."""


class Lost(Exception):
    """There is no hand inside: it could not be made, it ended, or it was late."""


class Hand:
    """One process in the sandbox, of a supervisor that has one thread and ignores SIGCHLD. One request at a time."""

    def __init__(self, box: Sandbox) -> None:
        """`Lost` where it cannot be made. Before the first request it says twice that it is there: see `greeted`."""
        ours, theirs = socket.socketpair()
        try:
            pidfd = os.pidfd_open(box.pid)
            if start_ticks(box.pid) != box.start_ticks:
                raise ProcessLookupError(errno.ESRCH, "the sandbox has ended")
            restrictions = inside.restrictions_of(box.folder)
            pid = os.fork()
        except (OSError, ValueError, TypeError) as error:
            ours.close()
            theirs.close()
            raise Lost(f"no hand inside {box.instance}: {error}") from None
        if pid == 0:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            # Nothing of the supervisor's goes along: this process is about to stand beside the agent.
            os.setsid()
            sock_fd, pid_fd = _keep(theirs.fileno(), pidfd)
            inside.run(socket.socket(fileno=sock_fd), pid_fd, restrictions)
        theirs.close()
        os.close(pidfd)
        self._maker, self._pidfd = os.pidfd_open(pid), -1
        self._ready = self.greeted = False
        self.sock = ours
        self.since = time.monotonic()
        self.sock.settimeout(SECONDS)

    def fileno(self) -> int:
        """Readable when an answer is there, or the end."""
        return self.sock.fileno()

    @property
    def late(self) -> bool:
        """The answer is overdue."""
        return time.monotonic() - self.since > SECONDS

    def send(self, message: dict[str, Any], fds: list[int]) -> None:
        """Ask; closes the descriptors. `Lost`."""
        try:
            wire.send(self.sock, message, fds)
        except OSError as error:
            raise Lost(f"the hand inside is gone: {error}") from None
        finally:
            for fd in fds:
                os.close(fd)
        self.since = time.monotonic()

    def receive(self) -> tuple[dict[str, Any], list[int]]:
        """The answer. `Lost`."""
        try:
            message, fds = wire.receive(self.sock)
        except (OSError, ValueError, wire.Closed) as error:
            raise Lost(f"the hand inside is gone: {error}") from None
        if message.get("ready") is False:
            raise Lost(f"no hand inside: {message['error']}")
        return message, fds

    def greet(self) -> bool:
        """Read one of its two first words, instead of an answer; true after both, which come in any order. `Lost`."""
        message, _ = self.receive()
        if "born" in message:
            try:
                self._pidfd = os.pidfd_open(message["born"])
            except OSError as error:
                raise Lost(f"the hand inside is gone: {error}") from None
        else:
            self._ready = True
        self.greeted = self._ready and self._pidfd >= 0
        return self.greeted

    def end(self) -> None:
        """End it. Its maker reaps it and ends then, so only while there is nothing to reap is that one ended itself."""
        self.sock.close()
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._maker if self._pidfd < 0 else self._pidfd, signal.SIGKILL)
        for pidfd in (self._maker, self._pidfd):
            if pidfd >= 0:
                os.close(pidfd)


def _keep(*fds: int) -> list[int]:
    """Keep these alone of all descriptors from 3 on; null for the standard ones."""
    null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
    for number in (0, 1, 2):
        os.dup2(null, number)
    high = [os.dup(fd) for fd in fds]
    first = 3
    for fd in sorted(high):
        libc.close_range(first, fd - 1)
        first = fd + 1
    libc.close_range(first)
    return high
