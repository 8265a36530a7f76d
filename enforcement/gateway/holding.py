"""Where a request waits that an order found sensitive: until the order is lifted, or its time is over.

Bounded in number, bytes and time. A request that finds no room is refused at once; what waits is never sent on while
the order stands.
"""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from clawback.enforcement.gateway.policies import Judged
from clawback.enforcement.gateway.standing import Standing

__all__ = ["MOST_BYTES", "MOST_HELD", "NotHeldError", "Queue"]

MOST_HELD = 128
MOST_BYTES = 16 * 1024 * 1024
_LOOK_SECONDS = 1.0
_CLOSE_WAIT = 8  # of enum tcp_state: the other side has ended, and is not waiting for an answer


class NotHeldError(Exception):
    """There is no room, or the time is over; the text says which."""


@dataclass(slots=True)
class Queue:
    """`seconds` is how long one request waits. `held` counts, by order, the requests that wait now."""

    seconds: float
    held: dict[str, int] = field(default_factory=dict)
    waiting: int = 0
    _bytes: int = 0

    async def wait(
        self, judged: Judged, size: int, sock: socket.socket, standing: Standing, again: Callable[[], Judged]
    ) -> Judged:
        """Another judgement, by `again`, by which it waits no longer. `ConnectionError` where the agent has gone."""
        end = time.monotonic() + self.seconds
        with self._room(size, [order.id for order in judged.ruling.held]):
            while judged.decision.allowed and judged.ruling.held:
                left = end - time.monotonic()
                if left <= 0:
                    raise NotHeldError(f"held for {self.seconds:g} s, and the order still stands")
                await standing.changed(min(left, _LOOK_SECONDS))
                if sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] == _CLOSE_WAIT:
                    raise ConnectionAbortedError("the agent gave up a request that was held")
                judged = again()
        return judged

    @contextlib.contextmanager
    def _room(self, size: int, orders: list[str]) -> Iterator[None]:
        if self.waiting >= MOST_HELD or self._bytes + size > MOST_BYTES:
            raise NotHeldError("too many requests are held already")
        self.waiting += 1
        self._bytes += size
        for order in orders:
            self.held[order] = self.held.get(order, 0) + 1
        try:
            yield
        finally:
            self.waiting -= 1
            self._bytes -= size
            for order in orders:
                self.held[order] -= 1
                if not self.held[order]:
                    del self.held[order]
