"""Socket handling that containment depends on: little in flight, resets that are resets, aborts seen at once."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import select
import socket
import struct
from collections.abc import Callable

__all__ = ["CHUNK", "AbortWatch", "close", "readable", "reset", "send", "sever", "tune_agent", "tune_upstream"]

CHUNK = 64 * 1024
_UPSTREAM_BUFFER = 128 * 1024
_AGENT_BUFFER = 256 * 1024
_RESET = struct.pack("ii", 1, 0)
_UNSPEC = struct.pack("=H14x", socket.AF_UNSPEC)
_libc = ctypes.CDLL(None, use_errno=True)


def tune_upstream(sock: socket.socket) -> None:
    """Before connecting: what has left the gateway and not reached the destination stays below this buffer."""
    sock.setblocking(False)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _UPSTREAM_BUFFER)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def tune_agent(sock: socket.socket) -> None:
    """What a frozen agent has written and the gateway has not yet read stays below this buffer."""
    sock.setblocking(False)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _AGENT_BUFFER)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


async def send(sock: socket.socket, data: bytes, count: Callable[[int], None] | None = None) -> None:
    """Write all of it, telling `count` what the kernel has taken each time it took some.

    Counted piece by piece because the writer may be ended in the middle: the record must not say less than what left.
    """
    loop = asyncio.get_running_loop()
    rest = memoryview(data)
    while rest:
        try:
            taken = sock.send(rest)
        except BlockingIOError:
            await _ready(loop.add_writer, loop.remove_writer, sock.fileno())
            continue
        rest = rest[taken:]
        if count:
            count(taken)
    # send and recv do not yield while the socket is ready; a busy agent must not starve the others.
    await asyncio.sleep(0)


async def readable(sock: socket.socket) -> None:
    """Wait until there is something to read."""
    loop = asyncio.get_running_loop()
    await _ready(loop.add_reader, loop.remove_reader, sock.fileno())


async def _ready(add: Callable[..., object], remove: Callable[[int], object], fd: int) -> None:
    ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    add(fd, _done, ready)
    try:
        await ready
    finally:
        remove(fd)


def _done(ready: asyncio.Future[None]) -> None:
    if not ready.done():
        ready.set_result(None)


def reset(sock: socket.socket) -> None:
    """Close with RST: what waits in the send buffer is thrown away instead of delivered."""
    with contextlib.suppress(OSError):  # it may be dead already, which is what is wanted
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    close(sock)


def sever(sock: socket.socket) -> None:
    """Reset the connection at once and keep the descriptor, which the event loop may still be waiting on.

    connect(2) to AF_UNSPEC sends the RST and empties the send buffer before it returns; closing would wait until
    the tasks that use the descriptor have ended, some turns of the loop later. It fails only without a connection.
    """
    _libc.connect(sock.fileno(), _UNSPEC, len(_UNSPEC))


def close(sock: socket.socket) -> None:
    """Close, whatever state it is in."""
    with contextlib.suppress(OSError):
        sock.close()


class AbortWatch:
    """Tells at once when a watched socket was reset or destroyed, also while nobody reads from it.

    While the gateway waits to write upstream it does not read from the agent, so it would not learn of an abort. An
    epoll with an empty mask still reports EPOLLERR. A plain end of stream is no error and is not reported.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._epoll = select.epoll()
        self._calls: dict[int, Callable[[], None]] = {}
        loop.add_reader(self._epoll.fileno(), self._ready)

    def add(self, sock: socket.socket, call: Callable[[], None]) -> None:
        """Call `call` once, when `sock` has an error."""
        self._calls[sock.fileno()] = call
        self._epoll.register(sock.fileno(), select.EPOLLET)

    def remove(self, sock: socket.socket) -> None:
        """Stop watching; before the socket is closed, as its number is used again."""
        if self._calls.pop(sock.fileno(), None) is not None:
            with contextlib.suppress(OSError):
                self._epoll.unregister(sock.fileno())

    def close(self) -> None:
        """Stop watching everything."""
        self._loop.remove_reader(self._epoll.fileno())
        self._epoll.close()

    def _ready(self) -> None:
        for fd, mask in self._epoll.poll(0):
            if mask & select.EPOLLERR and (call := self._calls.pop(fd, None)):
                with contextlib.suppress(OSError):
                    self._epoll.unregister(fd)
                call()
