"""Reads the server's name from the first bytes of a TLS connection (RFC 8446, 4.1.2), without TLS and within bounds."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["MAX_HELLO", "Hello", "HelloError", "read_hello"]

MAX_HELLO = 32 * 1024
"""Bytes. A client with post-quantum key shares sends about 2 KiB."""

_HANDSHAKE, _CLIENT_HELLO, _SERVER_NAME, _HOST_NAME, _ECH = 22, 1, 0, 0, 0xFE0D
_MAX_RECORD = 16_384


class HelloError(ValueError):
    """TLS that is none, or is not to be understood; the text says why."""


@dataclass(frozen=True, slots=True)
class Hello:
    """`name` is as sent, empty without one. `encrypted`: another name may be inside (ECH), or only pretended."""

    name: str
    encrypted: bool


class _Reader:
    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def __bool__(self) -> bool:
        return self._at < len(self._data)

    def take(self, count: int) -> bytes:
        end = self._at + count
        if end > len(self._data):
            raise HelloError("a length leads beyond its end")
        part, self._at = self._data[self._at : end], end
        return part

    def number(self, size: int) -> int:
        return int.from_bytes(self.take(size), "big")

    def vector(self, size: int) -> _Reader:
        return _Reader(self.take(self.number(size)))


def read_hello(data: bytes) -> Hello | None:
    """The ClientHello that `data` begins with; None while more is needed. `HelloError` where it is none."""
    message, at = b"", 0
    while True:
        if data[at : at + 1] not in {b"", b"\x16"} or data[at + 1 : at + 2] not in {b"", b"\x03"}:
            raise HelloError("not TLS")
        if len(data) < at + 5:
            break
        length = int.from_bytes(data[at + 3 : at + 5], "big")
        if not 1 <= length <= _MAX_RECORD:
            raise HelloError("a TLS record of a wrong length")
        message += data[at + 5 : at + 5 + length]
        if message[:1] not in {b"", bytes((_CLIENT_HELLO,))}:
            raise HelloError("TLS that does not begin with a ClientHello")
        if len(message) >= 4 and len(message) >= (size := 4 + int.from_bytes(message[1:4], "big")):
            return _parse(message[4:size])
        if len(data) < at + 5 + length:
            break
        at += 5 + length
    if len(data) >= MAX_HELLO:
        raise HelloError(f"a ClientHello above {MAX_HELLO} bytes")
    return None


def _parse(body: bytes) -> Hello:
    reader = _Reader(body)
    reader.take(2 + 32)
    reader.vector(1)  # session id
    reader.vector(2)  # cipher suites
    reader.vector(1)  # compression
    name, encrypted, seen = "", False, set()
    extensions = reader.vector(2) if reader else _Reader(b"")
    if reader:
        raise HelloError("bytes behind the ClientHello")
    while extensions:
        kind, content = extensions.number(2), extensions.vector(2)
        if kind in seen:
            raise HelloError("an extension stands twice")
        seen.add(kind)
        if kind == _SERVER_NAME:
            name = _server_name(content)
        elif kind == _ECH:
            encrypted = True
    return Hello(name, encrypted)


def _server_name(content: _Reader) -> str:
    names = content.vector(2)
    if names.number(1) != _HOST_NAME:
        raise HelloError("a server name that is no host's")
    name = names.vector(2)
    # One name only: whoever takes the first and whoever takes the last must read the same.
    if names or content:
        raise HelloError("more than one server name")
    text = b""
    while name:
        text += name.take(1)
    if not text or not text.isascii():
        raise HelloError("a server name that is not ASCII")
    return text.decode("ascii")
