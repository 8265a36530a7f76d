"""Asks the kernel for one TCP connection of a network namespace by its two ends: sock_diag(7), or /proc/PID/net/tcp."""

from __future__ import annotations

import errno
import ipaddress
import os
import socket
import struct
import sys

__all__ = ["inode_of", "listed_inode_of"]

_HEADER = struct.Struct("=IHHII")
_REQUEST = struct.Struct("=BBBxI")
_IDENTITY = struct.Struct("!HH16s16s")
_BY_FAMILY, _ERROR = 20, 2
_ANY_COOKIE = struct.pack("=III", 0, 0xFFFFFFFF, 0xFFFFFFFF)  # interface 0, then INET_DIAG_NOCOOKIE twice
_ALL_STATES = 0xFFFFFFFF
_INODE_AT = 68  # in struct inet_diag_msg: behind 4 bytes, the identity (48), and four numbers
_PATIENCE = 2.0


def inode_of(diag: socket.socket, local: tuple[str, int], remote: tuple[str, int]) -> int:
    """The inode of the socket between two ends, as its owner's descriptor shows it (`socket:[INODE]`); 0 where it has
    no owner any more. `diag` is a NETLINK_SOCK_DIAG socket. `ProcessLookupError` where there is no such connection.
    """
    here, there = _address(local[0]), _address(remote[0])
    family = socket.AF_INET if here.version == 4 else socket.AF_INET6
    identity = _IDENTITY.pack(local[1], remote[1], here.packed, there.packed) + _ANY_COOKIE
    body = _REQUEST.pack(family, socket.IPPROTO_TCP, 0, _ALL_STATES) + identity
    diag.settimeout(_PATIENCE)
    diag.send(_HEADER.pack(_HEADER.size + len(body), _BY_FAMILY, 1, 1, 0) + body)
    data = diag.recv(8192)
    kind = _HEADER.unpack_from(data)[1]
    payload = data[_HEADER.size :]
    if kind == _ERROR:
        code = -struct.unpack_from("=i", payload)[0]
        if code == errno.ENOENT:
            raise ProcessLookupError(errno.ESRCH, "no such connection")
        raise OSError(code, os.strerror(code))
    return int(struct.unpack_from("=I", payload, _INODE_AT)[0])


def listed_inode_of(table: str, local: tuple[str, int], remote: tuple[str, int]) -> int:
    """The same from the text of a /proc/PID/net/tcp or tcp6: slower, and without any right over the namespace."""
    wanted = [_written(local), _written(remote)]
    for line in table.splitlines()[1:]:
        fields = line.split()
        if len(fields) > 9 and fields[1:3] in ([one[0] for one in wanted], [one[1] for one in wanted]):
            return int(fields[9])
    raise ProcessLookupError(errno.ESRCH, "no such connection")


def _written(end: tuple[str, int]) -> tuple[str, str]:
    """An end as tcp and as tcp6 write it: each four bytes as a number of this machine's byte order, then the port."""
    address = _address(end[0])
    mapped = b"\0" * 10 + b"\xff\xff" + address.packed if address.version == 4 else address.packed
    return tuple(
        "".join(f"{int.from_bytes(packed[at : at + 4], sys.byteorder):08X}" for at in range(0, len(packed), 4))
        + f":{end[1]:04X}"
        for packed in (address.packed, mapped)
    )  # type: ignore[return-value]  # one for each of the two


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """IPv4 in its own form: a socket of either family may carry it."""
    address = ipaddress.ip_address(text)
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address
