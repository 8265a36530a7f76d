"""Ends an agent's TLS in the gateway, or makes sure from its first bytes that a tunnel goes where it said."""

from __future__ import annotations

import asyncio
import socket
import ssl

from clawback.enforcement.gateway.authority import Authority
from clawback.enforcement.gateway.channel import Secure
from clawback.enforcement.gateway.hello import Hello, HelloError, read_hello
from clawback.enforcement.gateway.sockets import CHUNK
from clawback.enforcement.policy.names import AmbiguousError, address_of, normal_host

__all__ = ["TlsRefusedError", "misdirected", "outgoing", "terminate"]


class TlsRefusedError(Exception):
    """The agent's TLS is not let through; the text says why, and quotes nothing longer than a name."""


async def terminate(sock: socket.socket, early: bytes, host: str, authority: Authority, seconds: float) -> Secure:
    """The agent's side of a tunnel to `host`, in the clear for the gateway. Never passed on where that fails.

    `TlsRefusedError`; `ssl.SSLError` where the agent does not want it.
    """
    loop = asyncio.get_running_loop()
    data = early
    try:
        async with asyncio.timeout(seconds):
            while not data or (hello := read_hello(data)) is None:
                more = await loop.sock_recv(sock, CHUNK)
                if not more:
                    raise TlsRefusedError("the tunnel ended before TLS began")
                data += more
            if why := misdirected(hello, host):
                raise TlsRefusedError(why)
            channel = Secure(sock, authority.context(host), early=data)
            await channel.handshake()
    except HelloError as error:
        raise TlsRefusedError(f"the gateway looks inside this tunnel, and it is {error}") from None
    except TimeoutError:
        raise TlsRefusedError("TLS took too long to begin") from None
    return channel


def misdirected(hello: Hello, host: str) -> str:
    """Why TLS with this ClientHello does not belong into a tunnel to `host`; empty where it does."""
    if address_of(host) is not None:
        return ""  # an address has no name to be sent
    if not hello.name:
        return "TLS names no server"
    try:
        name = normal_host(hello.name)
    except AmbiguousError:
        name = ""
    return "" if name == host else f"TLS names {hello.name[:253]!r}, the tunnel is for {host}"


async def outgoing(sock: socket.socket, context: ssl.SSLContext, host: str, seconds: float) -> Secure:
    """TLS to a destination that proves to be `host`. `OSError` (`ssl.SSLError` is one) or `TimeoutError` otherwise."""
    channel = Secure(sock, context, host=host)
    async with asyncio.timeout(seconds):
        await channel.handshake()
    return channel
