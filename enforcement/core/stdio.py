"""Pass three descriptors to the core: `clawback run` gives an agent its own terminal or pipes.

HTTP carries no descriptors, so they go over a second socket, `core-fds.sock`, with a random token of 32 hex digits that
the launch request then names. Unclaimed ones are closed after ten seconds.
"""

from __future__ import annotations

import array
import asyncio
import contextlib
import os
import re
import secrets
import socket
import threading
import time
from pathlib import Path

from clawback.enforcement.core.peers import Permissions, peer_uid
from clawback.errors import NotFound, Refused, Unreachable

__all__ = ["StdioDesk", "send_stdio"]

_TOKEN = re.compile(rb"[0-9a-f]{32}")
_SECONDS = 10.0
_MOST = 64


def send_stdio(path: Path, descriptors: tuple[int, int, int]) -> str:
    """Hand over stdin, stdout and stderr; returns the token to launch with. `Unreachable`, `Refused`."""
    token = secrets.token_hex(16)
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as link:
            link.settimeout(5.0)
            link.connect(str(path))
            socket.send_fds(link, [token.encode()], list(descriptors))
            answer = link.recv(64)
    except OSError as error:
        raise Unreachable(
            f"the core does not take descriptors: {error.strerror}", hint="is clawback core up?"
        ) from None
    if answer != b"ok":
        raise Refused("the core refused the descriptors", hint="core.allow in clawback.yaml lists who may launch")
    return token


class StdioDesk:
    """The core's side: takes descriptors in, hands them out by token, once, to the same user."""

    def __init__(self, path: Path, permissions: Permissions) -> None:
        self._permissions = permissions
        self._lock = threading.Lock()
        self._waiting: dict[str, tuple[int, float, tuple[int, ...]]] = {}
        path.unlink(missing_ok=True)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
        self._socket.bind(str(path))
        path.chmod(0o666)  # anybody may connect; the peer's credentials decide
        self._socket.listen(16)
        self._socket.setblocking(False)

    def attach(self, loop: asyncio.AbstractEventLoop) -> None:
        """Serve from this loop."""
        loop.add_reader(self._socket, self._accept, loop)

    def claim(self, token: str, uid: int) -> tuple[int, int, int]:
        """The descriptors, which are the caller's to close from now on. `NotFound` for any but this user's token."""
        with self._lock:
            owner, _, descriptors = self._waiting.get(token, (-1, 0.0, ()))
            if owner != uid or len(descriptors) != 3:
                raise NotFound("no descriptors wait under this token", hint="pass them, then launch within ten seconds")
            del self._waiting[token]
        return (descriptors[0], descriptors[1], descriptors[2])

    def close(self, loop: asyncio.AbstractEventLoop) -> None:
        """Close the socket and what was not claimed."""
        loop.remove_reader(self._socket)
        self._socket.close()
        with self._lock:
            for _, _, descriptors in self._waiting.values():
                _close(descriptors)
            self._waiting.clear()

    def _accept(self, loop: asyncio.AbstractEventLoop) -> None:
        with contextlib.suppress(BlockingIOError):
            link, _ = self._socket.accept()
            link.setblocking(False)
            _, uid = peer_uid(link)
            try:
                self._permissions.check(uid, "launch")
            except Refused:
                link.close()
                return
            # A peer that connects and says nothing is dropped like unclaimed descriptors are.
            timer = loop.call_later(_SECONDS, self._drop, loop, link)
            loop.add_reader(link, self._receive, loop, link, uid, timer)

    def _receive(
        self, loop: asyncio.AbstractEventLoop, link: socket.socket, uid: int, timer: asyncio.TimerHandle
    ) -> None:
        timer.cancel()
        try:
            message, descriptors = _receive(link)
            token = message.decode("ascii", "replace")
            if len(descriptors) != 3 or not _TOKEN.fullmatch(message):
                _close(descriptors)
                return
            with self._lock:
                self._expire()
                if token in self._waiting or len(self._waiting) >= _MOST:
                    _close(descriptors)
                    return
                self._waiting[token] = (uid, time.monotonic(), tuple(descriptors))
            loop.call_later(_SECONDS + 0.1, self._expire_locked)
            link.send(b"ok")
        except OSError:
            return  # the peer is gone; whatever it passed expires
        finally:
            self._drop(loop, link)

    def _drop(self, loop: asyncio.AbstractEventLoop, link: socket.socket) -> None:
        if link.fileno() >= 0:
            loop.remove_reader(link)
            link.close()

    def _expire_locked(self) -> None:
        with self._lock:
            self._expire()

    def _expire(self) -> None:
        now = time.monotonic()
        for token in [key for key, (_, since, _) in self._waiting.items() if now - since > _SECONDS]:
            _close(self._waiting.pop(token)[2])


def _receive(link: socket.socket) -> tuple[bytes, list[int]]:
    # recv_fds of the standard library does not set CLOEXEC: the descriptors would leak into every child.
    descriptors = array.array("i")
    message, ancillary, _, _ = link.recvmsg(64, socket.CMSG_SPACE(8 * 4), socket.MSG_CMSG_CLOEXEC)
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            descriptors.frombytes(data[: len(data) - len(data) % descriptors.itemsize])
    return message, list(descriptors)


def _close(descriptors: tuple[int, ...] | list[int]) -> None:
    for descriptor in descriptors:
        with contextlib.suppress(OSError):  # already closed: nothing is left to do
            os.close(descriptor)
