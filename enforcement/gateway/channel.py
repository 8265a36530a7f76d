"""What bytes go over to one side of a conversation: the socket itself, or TLS upon it."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Callable
from typing import Protocol

from clawback.enforcement.gateway.sockets import CHUNK, send

__all__ = ["Channel", "Plain", "Secure"]

Count = Callable[[int], None]


class Channel(Protocol):
    """Raises `OSError` where the other side failed; `ssl.SSLError` is one."""

    @property
    def sock(self) -> socket.socket:
        """The socket beneath, for aborts."""
        ...

    async def recv(self) -> bytes:
        """Some bytes; none at an orderly end."""
        ...

    async def send(self, data: bytes, count: Count | None = None) -> None:
        """All of it; `count` hears what the kernel took, as the wire carries it."""
        ...

    async def finish(self) -> None:
        """Say, where there is a way to, that this side has ended."""
        ...


class Plain:
    """The socket as it is."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self._loop = asyncio.get_running_loop()

    async def recv(self) -> bytes:
        """Some bytes; none at an orderly end."""
        return await self._loop.sock_recv(self.sock, CHUNK)

    async def send(self, data: bytes, count: Count | None = None) -> None:
        """All of it."""
        await send(self.sock, data, count)

    async def finish(self) -> None:
        """TCP's own end says it."""


class Secure:
    """TLS over a socket. `early` is what was read from it already. `handshake` comes first.

    An end without TLS's own end is an error: what was cut off in the middle must not pass for a whole answer.
    """

    def __init__(
        self, sock: socket.socket, context: ssl.SSLContext, *, host: str | None = None, early: bytes = b""
    ) -> None:
        self.sock = sock
        self._loop = asyncio.get_running_loop()
        self._in, self._out = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._in.write(early)
        self._tls = context.wrap_bio(self._in, self._out, server_side=host is None, server_hostname=host)
        self._writing = asyncio.Lock()

    async def handshake(self) -> None:
        """As server where no host was given, else as a client that accepts that host alone."""
        while True:
            try:
                self._tls.do_handshake()
            except ssl.SSLWantReadError:
                await self._flush(None)
                await self._fill()
                # A client that ends its part and goes on to ask would wait 40 ms for a delayed acknowledgement.
                self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
            except ssl.SSLError:
                with contextlib.suppress(OSError):  # the alert tells the other side why, if it still listens
                    await self._flush(None)
                raise
            else:
                await self._flush(None)
                return

    async def recv(self) -> bytes:
        """Some bytes; none at an orderly end."""
        while True:
            try:
                return self._tls.read(CHUNK)
            except ssl.SSLWantReadError:
                await self._flush(None)  # an answer to a key update
                await self._fill()
            except ssl.SSLZeroReturnError:
                return b""

    async def send(self, data: bytes, count: Count | None = None) -> None:
        """All of it."""
        rest = memoryview(data)
        while rest:
            taken = self._tls.write(rest[:CHUNK])
            rest = rest[taken:]
            await self._flush(count)

    async def finish(self) -> None:
        """Say that this side has ended."""
        with contextlib.suppress(ssl.SSLError):  # the other side's end is not waited for
            self._tls.unwrap()
        await self._flush(None)

    async def _fill(self) -> None:
        data = await self._loop.sock_recv(self.sock, CHUNK)
        if data:
            self._in.write(data)
        else:
            self._in.write_eof()

    async def _flush(self, count: Count | None) -> None:
        # One writer at a time: two that wait for the socket would mix their records.
        async with self._writing:
            if data := self._out.read():
                await send(self.sock, data, count)
