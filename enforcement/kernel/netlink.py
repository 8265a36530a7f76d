"""Raw netlink for cutting a network namespace off: addresses, links, and the destruction of sockets.

Written out by hand because a rogue agent's last byte waits on this path: pyroute2 takes 134 ms to import and cannot
destroy sockets. Every function works on a socket that its caller opened, in whichever namespace that was.

Formats: include/uapi/linux/{netlink,rtnetlink,if_addr,if_link,sock_diag,inet_diag}.h.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

__all__ = [
    "Address",
    "InetSocket",
    "Link",
    "addresses",
    "attributes",
    "destroy",
    "dump",
    "links",
    "set_link",
    "sockets",
    "withdraw",
]

NETLINK_ROUTE = 0
NETLINK_SOCK_DIAG = 4

LISTEN = 10
"""TCP_LISTEN of include/net/tcp_states.h."""
TIME_WAIT = 6

_HEADER = struct.Struct("=IHHII")
_REQUEST, _ACK, _DUMP = 0x1, 0x4, 0x300
_ERROR, _DONE = 2, 3
_NEWLINK, _GETLINK, _DELADDR, _GETADDR = 16, 18, 21, 22
_TCP_OLD, _BY_FAMILY, _DESTROY = 18, 20, 21
_LINK = struct.Struct("=BxHiII")
_ADDRESS = struct.Struct("=BBBBI")
_ATTRIBUTE = struct.Struct("=HH")
_IFA_ADDRESS, _IFA_LOCAL = 1, 2
_IFF_UP = 1
_DIAG = struct.Struct("=BBBxI48s")
_DIAG_OLD = struct.Struct("=Bxxx48sI4x")
_DIAG_ANSWER = struct.Struct("=BBBB48sIIIII")
_ALL_STATES = 0xFFFFFFFF
_BUFFER = 1 << 18
_PATIENCE = 5.0  # seconds for an answer that the kernel gives at once or never


@dataclass(frozen=True, slots=True)
class Link:
    """A network interface by number."""

    index: int
    up: bool


@dataclass(frozen=True, slots=True)
class Address:
    """An address of an interface; `packed` is 4 or 16 bytes."""

    family: int
    index: int
    prefix: int
    packed: bytes

    @property
    def text(self) -> str:
        """As people write it: `127.0.0.1/8`."""
        return f"{socket.inet_ntop(self.family, self.packed)}/{self.prefix}"


@dataclass(frozen=True, slots=True)
class InetSocket:
    """A TCP or UDP socket as sock_diag shows it. `state` is TCP's numbering; `identity` names it to `destroy`."""

    family: int
    protocol: int
    state: int
    local: str
    local_port: int
    remote: str
    remote_port: int
    uid: int
    inode: int
    identity: bytes

    @property
    def listening(self) -> bool:
        """Waits for connections and has none itself."""
        return self.protocol == socket.IPPROTO_TCP and self.state == LISTEN

    @property
    def connected(self) -> bool:
        """Has a peer: something may flow."""
        return not self.listening and self.remote_port != 0


def links(route: socket.socket) -> tuple[Link, ...]:
    """All interfaces of the namespace."""
    found = []
    for payload in dump(route, _GETLINK, _LINK.pack(socket.AF_UNSPEC, 0, 0, 0, 0)):
        _family, _type, index, flags, _change = _LINK.unpack_from(payload)
        found.append(Link(index, bool(flags & _IFF_UP)))
    return tuple(found)


def addresses(route: socket.socket) -> tuple[Address, ...]:
    """All addresses, of both families, of all interfaces."""
    found = []
    for payload in dump(route, _GETADDR, _ADDRESS.pack(socket.AF_UNSPEC, 0, 0, 0, 0)):
        family, prefix, _flags, _scope, index = _ADDRESS.unpack_from(payload)
        values = dict(attributes(payload[_ADDRESS.size :]))
        packed = values.get(_IFA_LOCAL) or values.get(_IFA_ADDRESS) or b""
        if len(packed) in {4, 16}:
            found.append(Address(family, index, prefix, packed))
    return tuple(found)


def withdraw(route: socket.socket, gone: Sequence[Address], down: Sequence[int]) -> None:
    """Remove addresses and take interfaces down, in one message to the kernel; what is not there is not an error.

    `OSError` for anything else, `PermissionError` without CAP_NET_ADMIN over the namespace.
    """
    batch = b""
    for number, address in enumerate(gone):
        body = _ADDRESS.pack(address.family, address.prefix, 0, 0, address.index)
        body += _ATTRIBUTE.pack(_ATTRIBUTE.size + len(address.packed), _IFA_LOCAL) + address.packed
        body += _ATTRIBUTE.pack(_ATTRIBUTE.size + len(address.packed), _IFA_ADDRESS) + address.packed
        batch += _message(_DELADDR, _REQUEST | _ACK, number + 1, body)
    for number, index in enumerate(down):
        body = _LINK.pack(socket.AF_UNSPEC, 0, index, 0, _IFF_UP)
        batch += _message(_NEWLINK, _REQUEST | _ACK, len(gone) + number + 1, body)
    _acknowledged(route, batch, len(gone) + len(down), ignore={errno.EADDRNOTAVAIL, errno.ENODEV})


def set_link(route: socket.socket, index: int, *, up: bool) -> None:
    """Take an interface up or down. Loopback coming up gets 127.0.0.1/8 and ::1/128 from the kernel."""
    body = _LINK.pack(socket.AF_UNSPEC, 0, index, _IFF_UP if up else 0, _IFF_UP)
    _acknowledged(route, _message(_NEWLINK, _REQUEST | _ACK, 1, body), 1, ignore=set())


def sockets(diag: socket.socket) -> tuple[InetSocket, ...]:
    """All TCP and UDP sockets of the namespace, of both families, in every state.

    TCP by the older request, which takes both families in one walk of the host's connection table: that walk, a
    quarter of a millisecond over 262144 buckets, is most of what an isolation costs.
    """
    walk = dump(diag, _TCP_OLD, _DIAG_OLD.pack(socket.AF_UNSPEC, b"", _ALL_STATES))
    found = [_socket(socket.IPPROTO_TCP, payload) for payload in walk]
    for family in (socket.AF_INET, socket.AF_INET6):
        request = _DIAG.pack(family, socket.IPPROTO_UDP, 0, _ALL_STATES, b"")
        found.extend(_socket(socket.IPPROTO_UDP, payload) for payload in dump(diag, _BY_FAMILY, request))
    return tuple(found)


def destroy(diag: socket.socket, doomed: Sequence[InetSocket]) -> dict[str, int]:
    """Abort sockets as if their connection had been reset; their owners see ECONNABORTED.

    Returns the errno names of refusals and how often each came; a socket that is gone already is not one.
    """
    refused: dict[str, int] = {}
    for start in range(0, len(doomed), 128):  # answers to more would overflow the receive buffer
        some = doomed[start : start + 128]
        batch = b"".join(
            _message(
                _DESTROY,
                _REQUEST | _ACK,
                number + 1,
                _DIAG.pack(one.family, one.protocol, 0, _ALL_STATES, one.identity),
            )
            for number, one in enumerate(some)
        )
        diag.send(batch)
        for code in _codes(diag, len(some)):
            if code not in {0, errno.ENOENT, errno.ESTALE}:
                name = errno.errorcode.get(code, str(code))
                refused[name] = refused.get(name, 0) + 1
    return refused


def _socket(protocol: int, payload: bytes) -> InetSocket:
    family, state, _timer, _retrans, identity, _expires, _rq, _wq, uid, inode = _DIAG_ANSWER.unpack_from(payload)
    local_port, remote_port = struct.unpack_from("!HH", identity)
    size = 4 if family == socket.AF_INET else 16
    return InetSocket(
        family=family,
        protocol=protocol,
        state=state,
        local=socket.inet_ntop(family, identity[4 : 4 + size]),
        local_port=local_port,
        remote=socket.inet_ntop(family, identity[20 : 20 + size]),
        remote_port=remote_port,
        uid=uid,
        inode=inode,
        identity=identity,
    )


def _message(kind: int, flags: int, sequence: int, body: bytes) -> bytes:
    text = _HEADER.pack(_HEADER.size + len(body), kind, flags, sequence, 0) + body
    return text + bytes(-len(text) % 4)


def attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Type and payload of each attribute in a message's tail."""
    at = 0
    while at + _ATTRIBUTE.size <= len(data):
        length, kind = _ATTRIBUTE.unpack_from(data, at)
        if length < _ATTRIBUTE.size:
            return
        yield kind, data[at + _ATTRIBUTE.size : at + length]
        at += (length + 3) & ~3


def _received(link: socket.socket) -> Iterator[tuple[int, int, bytes]]:
    """(type, sequence, payload) of the messages of one datagram from the kernel."""
    link.settimeout(_PATIENCE)
    data = link.recv(_BUFFER)
    at = 0
    while at + _HEADER.size <= len(data):
        length, kind, _flags, sequence, _port = _HEADER.unpack_from(data, at)
        if length < _HEADER.size:
            return
        yield kind, sequence, data[at + _HEADER.size : at + length]
        at += (length + 3) & ~3


def dump(link: socket.socket, kind: int, body: bytes) -> Iterator[bytes]:
    """Payloads of the answers to a request for all of a kind; none where the kernel does not know the kind."""
    link.send(_message(kind, _REQUEST | _DUMP, 0, body))
    while True:
        for got, _sequence, payload in _received(link):
            if got == _DONE:
                return
            if got == _ERROR:
                code = -struct.unpack_from("=i", payload)[0]
                if code == errno.ENOENT:
                    return  # this family or protocol is not in the kernel: it has no sockets
                raise OSError(code, os.strerror(code))
            yield payload


def _codes(link: socket.socket, count: int) -> Iterator[int]:
    """The errno (0 for success) of each of `count` acknowledgements."""
    while count:
        for kind, _sequence, payload in _received(link):
            if kind == _ERROR:
                count -= 1
                yield -struct.unpack_from("=i", payload)[0]


def _acknowledged(link: socket.socket, batch: bytes, count: int, *, ignore: set[int]) -> None:
    if not count:
        return
    link.send(batch)
    failed = [code for code in _codes(link, count) if code and code not in ignore]
    if failed:
        raise OSError(failed[0], os.strerror(failed[0]))
