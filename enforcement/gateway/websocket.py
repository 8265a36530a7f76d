"""Carries a WebSocket (RFC 6455) that a rule allows, and keeps the agent silent on it where the rule does.

The agent's frames are read one header at a time; control frames always pass, data frames if they may. What the
destination sends passes as it is. Extensions are not negotiated: with one, a frame could mean something else.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable, Iterable

from clawback.enforcement.gateway.channel import Channel
from clawback.enforcement.gateway.records import Flow
from clawback.enforcement.gateway.tunnel import silence
from clawback.enforcement.gateway.wire import until

__all__ = ["FrameError", "Frames", "asks", "carry", "offered"]

_CONTROL_LIMIT = 125
_CLOSE = 8
_OPCODES = frozenset((0, 1, 2, 8, 9, 10))
_MINE = frozenset((b"upgrade", b"connection", b"sec-websocket-extensions"))
Headers = Iterable[tuple[bytes, bytes]]


class FrameError(Exception):
    """The agent sent what it may not, or what is no frame; the text says which."""


def asks(method: bytes, headers: Headers) -> bool:
    """The request wants to become a WebSocket."""
    wanted = [value.strip().lower() for name, value in headers if name == b"upgrade"]
    return method == b"GET" and wanted == [b"websocket"]


def offered(headers: Headers) -> list[tuple[bytes, bytes]]:
    """The headers with the upgrade in them, and no extension."""
    kept = [pair for pair in headers if pair[0] not in _MINE]
    return [*kept, (b"upgrade", b"websocket"), (b"connection", b"upgrade")]


class Frames:
    """Looks at a client's frames as they go by, in pieces of any size, keeping no more than one header."""

    def __init__(self, *, may_send: bool) -> None:
        self._may_send = may_send
        self._header = b""
        self._left = 0

    def check(self, data: bytes) -> None:
        """`FrameError` where something in it must not pass."""
        at = 0
        while at < len(data):
            if self._left:
                taken = min(self._left, len(data) - at)
                self._left -= taken
                at += taken
                continue
            self._header += data[at : at + 1]
            at += 1
            self._left = self._payload()

    def _payload(self) -> int:
        """The length of what follows a whole header, which is then done with; 0 while more of the header is to come."""
        header = self._header
        if len(header) < 2:
            return 0
        opcode, short = header[0] & 0x0F, header[1] & 0x7F
        if header[0] & 0x70 or opcode not in _OPCODES or not header[1] & 0x80:
            raise FrameError("not a client's WebSocket frame")
        if opcode >= _CLOSE and (short > _CONTROL_LIMIT or not header[0] & 0x80):
            raise FrameError("a control frame that is too long or in pieces")
        if opcode < _CLOSE and not self._may_send:
            raise FrameError("the rule lets the agent send nothing on this WebSocket")
        extended = {126: 2, 127: 8}.get(short, 0)
        if len(header) < 2 + extended + 4:
            return 0
        self._header = b""
        return int.from_bytes(header[2 : 2 + extended], "big") if extended else short


async def carry(
    agent: Channel,
    early: bytes,
    upstream: Channel,
    late: bytes,
    flow: Flow,
    *,
    may_send: bool,
    scrub: Callable[[bytes], bytes],
    idle_seconds: float,
) -> None:
    """Both directions until one ends. `early` and `late` came right behind the request and the answer."""
    frames = Frames(may_send=may_send)

    async def out() -> None:
        data = early or await agent.recv()
        while data:
            frames.check(data)
            await upstream.send(data, lambda count: flow.count(sent=count))
            data = await agent.recv()

    async def back() -> None:
        data = late or await upstream.recv()
        while data:
            flow.count(received=len(data))
            await agent.send(scrub(data))
            data = await upstream.recv()

    async def either() -> None:
        tasks = (asyncio.ensure_future(out()), asyncio.ensure_future(back()))
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                try:
                    task.result()
                except ssl.SSLError:
                    return  # an end without TLS's own: frames have lengths, so nothing passes for whole
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)

    await until(either(), silence(flow, idle_seconds))
