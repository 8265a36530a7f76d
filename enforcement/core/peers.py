"""Who is at the other end of the core's socket, as the kernel says, and what they may ask for."""

from __future__ import annotations

import os
import socket
import struct
from asyncio import BaseTransport, Transport
from collections import Counter
from collections.abc import Mapping
from typing import ClassVar, cast

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from clawback.enforcement.kernel import namespaces
from clawback.errors import InvalidInput, Refused

__all__ = ["VERBS", "Permissions", "peer_uid", "protocol"]

VERBS = frozenset(
    {
        "agents",
        "attempt",
        "contain",
        "evidence",
        "halt",
        "health",
        "launch",
        "lift",
        "memory",
        "metrics",
        "probe",
        "relaunch",
        "release",
        "transcripts",
        "wait",
    }
)
"""What can be asked; `agents` covers one agent too, and looking at halts. Each is also a verb of the allow-list."""

_STRANGERS = 64
_CONNECTIONS = 64
_STRANGER_SECONDS = 2.0

_UCRED = struct.Struct("=iII")


def peer_uid(connection: socket.socket) -> tuple[int, int]:
    """(pid, uid) of the process that connected, recorded by the kernel at connect time.

    Without root an agent has our own user id, in a user namespace that it cannot leave: such a one is nobody, -1.
    """
    pid, uid, _gid = _UCRED.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))
    return pid, -1 if uid == os.geteuid() and not namespaces.at_home(pid) else uid


class Permissions:
    """User id → verbs. Root and the core's own user may do everything, everybody else what is listed."""

    def __init__(self, allow: Mapping[int, tuple[str, ...]]) -> None:
        for uid, verbs in allow.items():
            if unknown := sorted(set(verbs) - VERBS):
                raise InvalidInput(
                    f"core.allow.{uid}: no verb {unknown[0]!r}", hint=f"verbs are {', '.join(sorted(VERBS))}"
                )
        self._allow = {uid: frozenset(verbs) for uid, verbs in allow.items()}
        for uid in (0, os.geteuid()):
            self._allow[uid] = VERBS

    def check(self, uid: int, verb: str) -> None:
        """`Refused` unless the user may."""
        if verb not in self._allow.get(uid, frozenset()):
            raise Refused(f"user {uid} may not call {verb!r}", hint="core.allow in clawback.yaml lists who may do what")

    def known(self, uid: int) -> bool:
        """The user may do something at all."""
        return bool(self._allow.get(uid))


def protocol(permissions: Permissions) -> type[HttpToolsProtocol]:
    """Uvicorn's HTTP, with the scope's `client` set to (uid, pid) of the peer: a Unix socket has no address.

    Users who may do nothing get their 403, and are cut after two seconds; above 64 of their connections, at once. Of a
    user who may do something, but is neither root nor the core's own, 64 connections are kept, and no more taken. None
    must be able to use up the descriptors that an order needs.
    """
    trusted = {0, os.geteuid()}

    class PeerProtocol(HttpToolsProtocol):
        strangers: ClassVar[set[object]] = set()
        known: ClassVar[Counter[int]] = Counter()
        counted = -1

        def connection_made(self, transport: BaseTransport) -> None:
            """Ask the kernel once for each connection."""
            connected = cast("Transport", transport)
            super().connection_made(connected)
            pid, uid = peer_uid(connected.get_extra_info("socket"))
            self.client = (str(uid), pid)
            if not permissions.known(uid):
                if len(self.strangers) >= _STRANGERS:
                    connected.abort()
                else:
                    self.strangers.add(self)
                    self.loop.call_later(_STRANGER_SECONDS, connected.abort)
            elif uid not in trusted:
                if self.known[uid] >= _CONNECTIONS:
                    connected.abort()
                else:
                    self.known[uid] += 1
                    self.counted = uid

        def connection_lost(self, exc: Exception | None) -> None:
            """Forget it."""
            self.strangers.discard(self)
            if self.counted >= 0:
                self.known[self.counted] -= 1
                self.counted = -1
            super().connection_lost(exc)

    return PeerProtocol
