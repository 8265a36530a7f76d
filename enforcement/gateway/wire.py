"""One side of a proxied conversation: a channel and its HTTP state, read and written in bounded pieces."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import h11

from clawback.enforcement.gateway.channel import Channel

__all__ = ["Wire", "until"]

_MAX_HEAD = 32 * 1024  # request line and headers, or a chunk's header
Event = h11.Request | h11.InformationalResponse | h11.Response | h11.Data | h11.EndOfMessage | h11.ConnectionClosed


class Wire:
    """`role` is h11's: SERVER towards the agent, CLIENT towards the destination."""

    def __init__(self, channel: Channel, role: type[h11.SERVER | h11.CLIENT]) -> None:
        self.channel = channel
        self.http = h11.Connection(role, max_incomplete_event_size=_MAX_HEAD)

    async def first_byte(self) -> bool:
        """Wait for something to parse; False at the end of the stream."""
        if self.http.trailing_data[0]:
            return True
        return await self._fill()

    async def event(self, count: Callable[[int], None] | None = None) -> Event:
        """The next whole event; `count` hears how many bytes were read. `h11.RemoteProtocolError`: not HTTP."""
        while True:
            event = self.http.next_event()
            if event is h11.NEED_DATA:
                await self._fill(count)
            elif event is h11.PAUSED:
                raise h11.RemoteProtocolError("more data than the message has")
            else:
                return event  # type: ignore[return-value]  # all other kinds are in Event

    async def send(self, event: Event, count: Callable[[int], None] | None = None) -> None:
        """Write an event; returns when the kernel took it all, which is the backpressure."""
        data = self.http.send(event)
        if data:
            await self.channel.send(data, count)

    async def _fill(self, count: Callable[[int], None] | None = None) -> bool:
        data = await self.channel.recv()
        self.http.receive_data(data)
        if count:
            count(len(data))
        return bool(data)


async def until(main: Coroutine[Any, Any, None], *guards: Coroutine[Any, Any, None]) -> None:
    """Run `main` to its end. A guard that raises ends it with that error; one that returns is done with."""
    task = asyncio.ensure_future(main)
    tasks = (task, *(asyncio.ensure_future(guard) for guard in guards))
    running = set(tasks)
    try:
        while not task.done():
            done, running = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
            for one in done:
                one.result()
    finally:
        for one in tasks:
            one.cancel()
        await asyncio.wait(tasks)
        for one in tasks:
            if not one.cancelled():
                one.exception()  # seen: the error that is raised is the first
