"""Carries a CONNECT tunnel's bytes, both ways, until an end, an abort or silence."""

from __future__ import annotations

import asyncio
import socket
import time

from clawback.enforcement.gateway.hello import HelloError, read_hello
from clawback.enforcement.gateway.intercept import TlsRefusedError, misdirected
from clawback.enforcement.gateway.records import Flow
from clawback.enforcement.gateway.sockets import CHUNK, send
from clawback.enforcement.gateway.wire import until

__all__ = ["silence", "tunnel"]


async def tunnel(agent: socket.socket, upstream: socket.socket, early: bytes, flow: Flow, idle_seconds: float) -> None:
    """Both directions until both ended. `early` is what came right behind the CONNECT.

    `OSError`: one side died. `TlsRefusedError`: it begins as TLS that is not for this destination; none of it left.
    """
    loop = asyncio.get_running_loop()

    async def out() -> None:
        data = await _beginning(agent, early, flow.target.host)
        while data:
            await send(upstream, data, lambda taken: flow.count(sent=taken))
            data = await loop.sock_recv(agent, CHUNK)
        upstream.shutdown(socket.SHUT_WR)

    async def back() -> None:
        while data := await loop.sock_recv(upstream, CHUNK):
            flow.count(received=len(data))
            await send(agent, data)
        agent.shutdown(socket.SHUT_WR)

    async def both() -> None:
        tasks = (asyncio.ensure_future(out()), asyncio.ensure_future(back()))
        try:
            await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)

    await until(both(), silence(flow, idle_seconds))


async def _beginning(agent: socket.socket, early: bytes, host: str) -> bytes:
    """The first bytes; where they are TLS's, all of the ClientHello, which names the tunnel's own host."""
    loop = asyncio.get_running_loop()
    data = early or await loop.sock_recv(agent, CHUNK)
    if data[:1] != b"\x16":
        return data
    try:
        while (hello := read_hello(data)) is None:
            more = await loop.sock_recv(agent, CHUNK)
            if not more:
                raise TlsRefusedError("the tunnel ended within a ClientHello")
            data += more
    except HelloError as error:
        raise TlsRefusedError(str(error)) from None
    if why := misdirected(hello, host):
        raise TlsRefusedError(why)
    return data


async def silence(flow: Flow, seconds: float) -> None:
    """Raises `TimeoutError` when nothing has moved in either direction for so long."""
    while True:
        left = flow.active_at + seconds - time.monotonic()
        if left <= 0:
            raise TimeoutError
        await asyncio.sleep(left)
