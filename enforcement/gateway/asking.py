"""Asks the core what only it may see: which programs hold a connection, and what a placeholder stands for.

The core hands over the socket (see `core.desk`). No answer, for whatever reason, is an error, never a guess.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import socket
from dataclasses import dataclass
from typing import Any

import structlog

from clawback.enforcement.gateway.sockets import close

__all__ = ["Asking", "Caller", "Credential", "NoAnswerError"]

_MOST_BYTES = 128 * 1024
_SECONDS = 5.0
_WAITING = 1024
_log = structlog.get_logger()


class NoAnswerError(Exception):
    """The text says why."""


@dataclass(frozen=True, slots=True)
class Caller:
    """One process that holds the connection: its program's path and its ancestors', nearest first.

    `changed` are the paths among them whose files are others than when they were first seen.
    """

    pid: int
    path: str
    sha256: str
    ancestors: tuple[str, ...]
    changed: tuple[str, ...]


@dataclass(frozen=True, slots=True, repr=False)
class Credential:
    """What a placeholder stands for, and where it may go: `HOST[:PORT]` by TLS, `http://HOST[:PORT]` in the clear."""

    value: str
    hosts: tuple[str, ...]


class Asking:
    """One for a gateway; nobody to ask until the core has connected."""

    def __init__(self) -> None:
        self._sock: socket.socket | None = None
        self._reading: asyncio.Task[None] | None = None
        self._waiting: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._numbers = itertools.count(1)

    def connect(self, sock: socket.socket) -> None:
        """Ask here from now on. Questions to an earlier core have no answer."""
        self.close()
        sock.setblocking(False)
        self._sock = sock
        self._reading = asyncio.ensure_future(self._read(sock))
        # Only once the loop no longer waits on it: its number may be another's a moment later.
        self._reading.add_done_callback(lambda _: close(sock))

    def close(self) -> None:
        """Nobody is left to ask."""
        if self._reading is not None:
            self._reading.cancel()
        self._sock, self._reading = None, None
        for future in self._waiting.values():
            if not future.done():
                future.set_exception(NoAnswerError("the core is gone"))
        self._waiting.clear()

    async def callers(self, instance: str, local: tuple[str, int], remote: tuple[str, int]) -> tuple[Caller, ...]:
        """Who holds the agent's connection from `local` to `remote`; at least one."""
        question = {"ask": "holders", "instance": instance, "local": list(local), "remote": list(remote)}
        answer = await self._ask(question)
        try:
            return tuple(_caller(one) for one in answer["holders"])
        except (KeyError, TypeError, ValueError, IndexError):
            raise NoAnswerError("the core's answer is not to be understood") from None

    async def credential(self, instance: str, name: str) -> Credential:
        """What `name` stands for now: asked each time, so that what was revoked or replaced is not used again."""
        answer = await self._ask({"ask": "secret", "instance": instance, "name": name})
        value, hosts = answer.get("value"), answer.get("hosts")
        if not isinstance(value, str) or not isinstance(hosts, list):
            raise NoAnswerError("the core's answer is not to be understood")
        return Credential(value, tuple(str(host) for host in hosts))

    async def hosts(self, instance: str) -> tuple[str, ...]:
        """Where placeholders of this instance may be sent; they cannot be found inside a tunnel that stays closed."""
        answer = await self._ask({"ask": "hosts", "instance": instance})
        found = answer.get("hosts")
        if not isinstance(found, list):
            raise NoAnswerError("the core's answer is not to be understood")
        return tuple(str(host) for host in found)

    async def _ask(self, question: dict[str, Any]) -> dict[str, Any]:
        sock = self._sock
        if sock is None:
            raise NoAnswerError("no core is connected")
        if len(self._waiting) >= _WAITING:
            raise NoAnswerError("too many questions wait")
        number = next(self._numbers)
        future: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self._waiting[number] = future
        try:
            async with asyncio.timeout(_SECONDS):
                packet = json.dumps({"id": number} | question).encode()
                await asyncio.get_running_loop().sock_sendall(sock, packet)
                answer = await future
        except TimeoutError:
            raise NoAnswerError("the core did not answer in time") from None
        except OSError as error:
            raise NoAnswerError(f"the core is gone: {error.strerror}") from None
        finally:
            self._waiting.pop(number, None)
        if why := answer.get("error"):
            raise NoAnswerError(str(why)[:200])
        return answer

    async def _read(self, sock: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        with contextlib.suppress(OSError):
            while packet := await loop.sock_recv(sock, _MOST_BYTES):
                try:
                    answer = json.loads(packet)
                    future = self._waiting.get(answer["id"])
                except (ValueError, KeyError, TypeError):
                    _log.error("the core sent what is not to be understood")
                    continue
                if future is not None and not future.done():
                    future.set_result(answer)
        if self._sock is sock:
            self._reading = None
            self.close()


def _caller(one: dict[str, Any]) -> Caller:
    path, digest, _ = one["program"]
    programs = [one["program"], *one["ancestors"]]
    return Caller(
        pid=int(one["pid"]),
        path=str(path),
        sha256=str(digest),
        ancestors=tuple(str(ancestor[0]) for ancestor in one["ancestors"]),
        changed=tuple(str(program[0]) for program in programs if program[2]),
    )
