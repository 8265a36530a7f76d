"""Unix sockets of a network namespace, and what a copy of somebody's socket tells of where it leads.

Formats: include/uapi/linux/{unix_diag,sockios}.h.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import select
import socket
import struct
import sys
import threading
import time
from pathlib import Path

from clawback.enforcement.kernel import netlink

__all__ = ["bound_paths", "dead", "namespace", "peer_pid", "peers"]

_BY_FAMILY = 20
_REQUEST = struct.Struct("=BBHIIIII")
_ANSWER = struct.Struct("=BBBBIII")
_SHOW_PEER, _ATTRIBUTE_PEER = 4, 2
_SIOCGSKNS = 0x894C
_SO_PEERCRED = struct.Struct("=iII")
_FRESH_SECONDS, _STALE_SECONDS, _SHARE = 0.02, 0.25, 0.05
_BOUND = re.compile(r"^\S+: \S+ \S+ \S+ \S+ \S+ +\d+ (/.*)$", re.MULTILINE)  # fs/unix/af_unix.c: unix_seq_show
_listing = threading.Lock()
_listed: dict[str, tuple[float, tuple[str, ...]]] = {}


def peers(diag: socket.socket) -> dict[int, int | None]:
    """Inode → the peer's inode (0 while it is not accepted yet, None without one) of each Unix socket of a namespace.

    An accepted socket is of the namespace that the connection came from, whoever accepted it.
    """
    request = _REQUEST.pack(socket.AF_UNIX, 0, 0, 0xFFFFFFFF, 0, _SHOW_PEER, 0, 0)
    found: dict[int, int | None] = {}
    for payload in netlink.dump(diag, _BY_FAMILY, request):
        inode = _ANSWER.unpack_from(payload)[4]
        peer = dict(netlink.attributes(payload[_ANSWER.size :])).get(_ATTRIBUTE_PEER)
        found[inode] = None if peer is None else int.from_bytes(peer[:4], sys.byteorder)
    return found


def namespace(descriptor: int) -> int:
    """Inode of the network namespace that a socket was made in; 0 where we may not know."""
    try:
        found = fcntl.ioctl(descriptor, _SIOCGSKNS)
    except OSError as error:
        if error.errno in {errno.EPERM, errno.ENOTTY}:
            return 0
        raise
    try:
        return os.fstat(found).st_ino
    finally:
        os.close(found)


def peer_pid(one: socket.socket) -> int:
    """Who connected it or made the pair, as this pid namespace numbers it; 0 where nobody is known."""
    try:
        return int(_SO_PEERCRED.unpack(one.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _SO_PEERCRED.size))[0])
    except OSError:
        return 0


def dead(descriptor: int) -> bool:
    """Whether nothing passes by a socket or pipe any more, either way: nobody at the other end, or shut down."""
    poll = select.poll()
    poll.register(descriptor, 0)  # hang-up and error are reported unasked
    return bool(poll.poll(0))


def bound_paths(listing: str = "/proc/thread-self/net/unix") -> tuple[str, ...]:
    """Paths that sockets of a namespace are bound to and wait for connections or datagrams at, sorted; abstract names
    not.

    As they were at most `_FRESH_SECONDS` ago, or where there are very many as long ago as keeps listing them to a
    twentieth of the time: the whole host's are listed, milliseconds where there are a thousand agents, and in a storm
    each order asks.
    """
    with _listing:
        until, paths = _listed.get(listing, (0.0, ()))
        if (began := time.monotonic()) > until:
            text = Path(listing).read_bytes().decode("utf-8", "surrogateescape")  # no other line end is one
            paths = tuple(sorted(_BOUND.findall(text)))
            took = time.monotonic() - began
            _listed[listing] = began + min(max(_FRESH_SECONDS, took / _SHARE), _STALE_SECONDS), paths
        return paths
