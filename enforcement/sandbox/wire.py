"""One message on a Unix stream socket: four bytes of length, JSON, and descriptors beside the first bytes."""

from __future__ import annotations

import array
import json
import os
import socket
import struct
from collections.abc import Sequence
from dataclasses import fields, is_dataclass
from typing import Any

__all__ = ["MAX_FDS", "MAX_MESSAGE", "Closed", "encode", "receive", "receive_bytes", "send", "send_bytes", "words"]

MAX_MESSAGE = 64 * 1024 * 1024
MAX_FDS = 250  # the kernel takes 253
_HEAD = struct.Struct("!I")


class Closed(Exception):
    """The other side closed the socket between two messages."""


def _plain(value: object) -> dict[str, Any]:
    if is_dataclass(value):  # `asdict` copies all that is in it: ten times the price of encoding it
        return {field.name: getattr(value, field.name) for field in fields(value)}
    raise TypeError(f"{type(value).__name__} has no JSON form")


_ENCODER = json.JSONEncoder(separators=(",", ":"), default=_plain)


def encode(message: Any) -> str:
    """JSON, a dataclass as an object of its fields."""
    return _ENCODER.encode(message)


def send(sock: socket.socket, message: Any, fds: Sequence[int] = ()) -> None:
    """Send a JSON value (with dataclasses in it) and descriptors; the receiver gets copies."""
    send_bytes(sock, encode(message).encode(), fds)


def send_bytes(sock: socket.socket, body: bytes, fds: Sequence[int] = ()) -> None:
    """The same with any bytes."""
    data = _HEAD.pack(len(body)) + body
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
    # By sendmsg alone: a sandbox's first process reports while it is itself under a filter that may escalate sendto.
    sent = sock.sendmsg([data], rights)
    while sent < len(data):
        data = data[sent:]
        sent = sock.sendmsg([data])


def _exactly(sock: socket.socket, count: int) -> bytes:
    parts: list[bytes] = []
    while count:
        part = sock.recv(min(count, 1 << 20))
        if not part:
            raise ConnectionResetError("the other side closed the socket inside a message")
        parts.append(part)
        count -= len(part)
    return b"".join(parts)


def receive(sock: socket.socket) -> tuple[Any, list[int]]:
    """The next message with its descriptors, close-on-exec and the caller's to close.

    `Closed` at a clean end, `ConnectionResetError` inside a message, `TimeoutError` by the socket's own timeout,
    `ValueError` for a message too long or not JSON.
    """
    body, fds = receive_bytes(sock)
    try:
        return json.loads(body), fds
    except BaseException:
        for fd in fds:
            os.close(fd)
        raise


def receive_bytes(sock: socket.socket) -> tuple[bytes, list[int]]:
    """The same with any bytes."""
    space = socket.CMSG_LEN(MAX_FDS * array.array("i").itemsize)
    head, ancillary, _, _ = sock.recvmsg(_HEAD.size, space, socket.MSG_CMSG_CLOEXEC)
    fds = array.array("i")
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            fds.frombytes(data[: len(data) - len(data) % fds.itemsize])
    try:
        if not head:
            raise Closed
        head += _exactly(sock, _HEAD.size - len(head))
        (length,) = _HEAD.unpack(head)
        if length > MAX_MESSAGE:
            raise ValueError(f"a message of {length} bytes")
        return _exactly(sock, length), list(fds)
    except BaseException:
        for fd in fds:
            os.close(fd)
        raise


def words(error: Exception) -> str:
    """What it says without the errno's number, which goes beside it."""
    number = error.errno if isinstance(error, OSError) else None
    return str(error).removeprefix(f"[Errno {number}] ")
