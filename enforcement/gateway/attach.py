"""Takes agents' listening sockets from the core, over `STATE/run/gateway-attach.sock`: a JSON line and descriptors.

    {"agent": ID, "instance": ID, "policy": NAME} + 1 or 2 listeners (IPv4, IPv6)   →  {"ok": true}
      and "tenant": NAME, "team": NAME, "tags": [TEXT …]: without them the agent is in every such order's scope
    {"detach": INSTANCE}                                                           →  {"ok": true}
    {"desk": true} + 1 socket on which the core answers questions (`asking`)       →  {"ok": true}
    anything else                                                                  →  {"ok": false, "error": WHY}

Only root and the user that the gateway was started by may speak here: who attaches a listener says who the agent is.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
from typing import Any

import structlog

from clawback.enforcement.gateway.peers import peer_of
from clawback.enforcement.gateway.server import Gateway
from clawback.enforcement.gateway.sockets import close, readable
from clawback.model import Subject

__all__ = ["AttachServer"]

_log = structlog.get_logger()
_MAX_LINE = 64 * 1024
_MAX_FDS = 8
_MAX_ID = 200
_NEEDED = {"agent", "instance", "policy"}
_LABELS = {"tenant", "team", "tags"}


class AttachServer:
    """Serves the bound, listening Unix socket `sock`."""

    def __init__(self, gateway: Gateway, sock: socket.socket, *, uids: frozenset[int]) -> None:
        self._gateway = gateway
        self._sock = sock
        self._uids = uids
        self._tasks: set[asyncio.Task[None]] = set()

    async def serve(self) -> None:
        """Until cancelled."""
        loop = asyncio.get_running_loop()
        try:
            while True:
                conn, _ = await loop.sock_accept(self._sock)
                task = asyncio.ensure_future(self._talk(conn))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)
        finally:
            for task in self._tasks:
                task.cancel()

    async def _talk(self, conn: socket.socket) -> None:
        conn.setblocking(False)
        loop = asyncio.get_running_loop()
        pending = b""
        fds: list[int] = []
        try:
            uid = peer_of(conn).uid
            if uid not in self._uids:
                _log.warning("attach refused", uid=uid)
                await loop.sock_sendall(conn, _reply(f"uid {uid} may not attach agents"))
                return
            while True:
                await readable(conn)
                data, received, _flags, _ = socket.recv_fds(conn, _MAX_LINE, _MAX_FDS, socket.MSG_CMSG_CLOEXEC)
                fds += received
                pending += data
                if not data or len(pending) > _MAX_LINE or len(fds) > _MAX_FDS:
                    return
                while b"\n" in pending:
                    line, _, pending = pending.partition(b"\n")
                    taken, fds = fds, []
                    await loop.sock_sendall(conn, self._handle(line, taken))
        except OSError as error:
            _log.warning("attach connection lost", error=error.strerror)
        finally:
            for fd in fds:
                os.close(fd)
            close(conn)

    def _handle(self, line: bytes, fds: list[int]) -> bytes:
        """Acts on one line; takes the descriptors over, or closes them."""
        try:
            message = json.loads(line)
            if not isinstance(message, dict):
                raise TypeError("not a JSON object")
            if set(message) == {"detach"}:
                self._gateway.detach(_word(message, "detach"))
                return _reply("")
            if set(message) == {"desk"}:
                self._gateway.asking.connect(_desk(fds))
                fds = []
                return _reply("")
            if not _NEEDED <= set(message) <= _NEEDED | _LABELS:
                raise ValueError("expected agent, instance and policy, or detach, or desk")
            agent, instance, policy = (_word(message, key) for key in ("agent", "instance", "policy"))
            subject = _subject(agent, message)
            if not 1 <= len(fds) <= 2:
                raise ValueError(f"{len(fds)} descriptors, expected 1 or 2 listeners")
            listeners = _listeners(fds)
            fds = []
            self._gateway.attach(subject, instance, policy, listeners)
            _log.info("attached", agent=agent, instance=instance, policy=policy)
            return _reply("")
        except (ValueError, TypeError, OSError, RecursionError) as error:
            return _reply(str(error) or type(error).__name__)
        finally:
            for fd in fds:
                os.close(fd)


def _subject(agent: str, message: dict[str, Any]) -> Subject:
    """What was not said is not known, and not the same as empty."""
    for key in ("tenant", "team"):
        if key in message and not isinstance(message[key], str):
            raise ValueError(f"{key}: not a text")
    tags = message.get("tags")
    if tags is not None and not (isinstance(tags, list) and all(isinstance(tag, str) for tag in tags)):
        raise ValueError("tags: not a list of texts")
    return Subject(
        agent=agent,
        tenant=message.get("tenant"),
        team=message.get("team"),
        tags=None if tags is None else tuple(tags),
    )


def _desk(fds: list[int]) -> socket.socket:
    if len(fds) != 1:
        raise ValueError(f"{len(fds)} descriptors, expected one socket")
    probe = socket.socket(fileno=os.dup(fds[0]))
    with probe:
        if (probe.family, probe.type) != (socket.AF_UNIX, socket.SOCK_SEQPACKET):
            raise ValueError("the desk is not a Unix socket of packets")
    return socket.socket(fileno=fds[0])


def _listeners(fds: list[int]) -> list[socket.socket]:
    """The descriptors as sockets, after making sure that each is a listening TCP socket."""
    probes = [socket.socket(fileno=os.dup(fd)) for fd in fds]
    try:
        for probe in probes:
            family = probe.getsockopt(socket.SOL_SOCKET, socket.SO_DOMAIN)
            listening = probe.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
            if family not in (socket.AF_INET, socket.AF_INET6) or not listening:
                raise ValueError("a descriptor is not a listening TCP socket")
    finally:
        for probe in probes:
            probe.close()
    listeners = [socket.socket(fileno=fd) for fd in fds]
    for listener in listeners:
        listener.setblocking(False)
    return listeners


def _word(message: dict[str, Any], key: str) -> str:
    value = message[key]
    if not isinstance(value, str) or not 1 <= len(value) <= _MAX_ID or not value.isprintable():
        raise ValueError(f"{key}: expected 1 to {_MAX_ID} printable characters")
    return value


def _reply(error: str) -> bytes:
    return json.dumps({"ok": False, "error": error} if error else {"ok": True}).encode() + b"\n"
