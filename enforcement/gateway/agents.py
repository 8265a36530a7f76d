"""The agents that are attached: their listeners, their connections, and whether they are cut off."""

from __future__ import annotations

import asyncio
import itertools
import secrets
import socket
from typing import TYPE_CHECKING

import structlog

from clawback.enforcement.gateway.asking import NoAnswerError
from clawback.enforcement.gateway.connection import Connection
from clawback.enforcement.gateway.sockets import close
from clawback.model import Subject

if TYPE_CHECKING:
    from clawback.enforcement.gateway.server import Gateway

__all__ = ["Agent"]

_log = structlog.get_logger()
_LOOKUPS = 4  # at once for one agent: name lookups share a few threads among all


class Agent:
    """One launch of one agent. Everything that comes in by its listeners is its own, whatever it says."""

    def __init__(self, gateway: Gateway, subject: Subject, instance: str, policy: str) -> None:
        self.subject = subject
        self.agent = subject.agent
        self.instance = instance
        self.policy = policy
        self.lookups = asyncio.Semaphore(_LOOKUPS)
        self.buffered = 0  # bytes of bodies that are kept because a rule looks at them
        self.connections: set[Connection] = set()
        self._bound: tuple[str, ...] | None = None
        self._gateway = gateway
        self._listeners: list[socket.socket] = []
        self._accepting: list[asyncio.Task[None]] = []
        self._prefix = secrets.token_hex(4)
        self._count = itertools.count(1)

    async def bound(self) -> tuple[str, ...]:
        """The hosts that its placeholders are for; they stay the same as long as an instance lives."""
        if self._bound is None:
            try:
                self._bound = await self._gateway.asking.hosts(self.instance)
            except NoAnswerError:
                return ()  # without the core there are no values to put in their place either
        return self._bound

    def listen(self, listeners: list[socket.socket]) -> None:
        """Accept on these from now on, instead of earlier ones; open connections stay."""
        self._stop_accepting()
        self._listeners = listeners
        self._accepting = [asyncio.ensure_future(self._accept(listener)) for listener in listeners]

    def reset_connections(self, why: str) -> int:
        """End every connection now; how many there were."""
        ended = list(self.connections)
        for connection in ended:
            connection.abort(why)
        return len(ended)

    def detach(self) -> None:
        """Stop accepting and end everything."""
        self._stop_accepting()
        self.reset_connections("agent was detached")

    def _stop_accepting(self) -> None:
        for task in self._accepting:
            task.cancel()
        for listener in self._listeners:
            close(listener)
        self._accepting, self._listeners = [], []

    async def _accept(self, listener: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            if len(self.connections) >= self._gateway.limits.connections:
                await asyncio.sleep(0.05)  # the backlog holds further ones; only this agent waits
                continue
            try:
                sock, _ = await loop.sock_accept(listener)
            except OSError as error:
                if error.errno in _LISTENER_DEAD:
                    _log.warning("listener is gone", agent=self.agent, instance=self.instance, error=error.strerror)
                    return
                await asyncio.sleep(0.05)  # out of descriptors, or the connection went before it was taken
                continue
            connection = Connection(self._gateway, self, sock, f"{self._prefix}-{next(self._count)}")
            self.connections.add(connection)
            self._gateway.metrics.connections.inc()
            connection.start(self._ended)

    def _ended(self, connection: Connection, task: asyncio.Task[None]) -> None:
        self.connections.discard(connection)
        self._gateway.metrics.connections.dec()
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.error("a connection ended by an error of the gateway's own", agent=self.agent, exc_info=error)


_LISTENER_DEAD = frozenset((9, 22, 88))  # EBADF, EINVAL, ENOTSOCK
