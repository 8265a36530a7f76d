"""Who is at the other end of a Unix socket, as the kernel says; and an HTTP protocol that lets only some in."""

from __future__ import annotations

import asyncio
import os
import socket
import struct
from typing import Any, NamedTuple

from uvicorn.protocols.http.h11_impl import H11Protocol

from clawback.enforcement.kernel import namespaces

__all__ = ["Peer", "guarded", "peer_of"]

_CREDENTIALS = struct.Struct("3i")


class Peer(NamedTuple):
    """The process that connected."""

    pid: int
    uid: int
    gid: int


def peer_of(sock: socket.socket) -> Peer:
    """By SO_PEERCRED: taken by the kernel when the peer connected, not claimed by it."""
    peer = Peer(*_CREDENTIALS.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)))
    # Without root an agent has our own user id, in a user namespace that it cannot leave: such a one is nobody.
    return peer._replace(uid=-1) if peer.uid == os.geteuid() and not namespaces.at_home(peer.pid) else peer


def guarded(uids: frozenset[int]) -> type[asyncio.Protocol]:
    """The server's HTTP protocol for a Unix socket, closed to everyone but these users before a byte is parsed."""

    class Guarded(H11Protocol):
        def connection_made(self, transport: Any) -> None:
            sock = transport.get_extra_info("socket")
            # asyncio hands out a TransportSocket, which has getsockopt as the real one does.
            peer = peer_of(sock)
            if peer.uid not in uids:
                body = b'{"error":{"type":"Refused","message":"this user may not use the gateway","hint":""}}'
                head = b"HTTP/1.1 403 Forbidden\r\nconnection: close\r\ncontent-type: application/json\r\n"
                transport.write(head + b"content-length: %d\r\n\r\n" % len(body) + body)
                transport.close()
                self.transport = transport
                self.refused = True
                return
            self.refused = False
            super().connection_made(transport)
            self.client = (f"uid:{peer.uid}", peer.pid)

        def data_received(self, data: bytes) -> None:
            if not self.refused:
                super().data_received(data)

        def eof_received(self) -> None:
            if not self.refused:
                super().eof_received()

        def connection_lost(self, exc: Exception | None) -> None:
            if not self.refused:
                super().connection_lost(exc)

    return Guarded
