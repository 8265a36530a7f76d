"""`shim.sock`, where a shim gives out the gateway's listening socket: how a restarted core gets it back."""

from __future__ import annotations

import contextlib
import os
import socket
from pathlib import Path

from clawback.enforcement.sandbox import wire
from clawback.enforcement.sandbox.record import Sandbox
from clawback.errors import Unreachable

__all__ = ["answer", "bind", "fetch_listener"]


def bind(folder: Path) -> socket.socket:
    """The shim's end, bound through its folder's descriptor: a socket's path may have 107 bytes at most."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        sock.bind(f"/proc/self/fd/{fd}/shim.sock")
        os.chmod("shim.sock", 0o600, dir_fd=fd)
    finally:
        os.close(fd)
    sock.listen(8)
    sock.setblocking(False)
    return sock


def answer(door: socket.socket, listener: int) -> None:
    """Hand a copy of the gateway's listening socket to root or to our own user, to nobody else."""
    with contextlib.suppress(OSError):
        peer, _ = door.accept()
        with peer:
            credentials = peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
            if int.from_bytes(credentials[4:8], "little") in {0, os.getuid()}:
                peer.settimeout(1.0)
                wire.send(peer, {}, [listener])


def fetch_listener(record: Sandbox, *, timeout: float = 2.0) -> int:
    """A copy of the listening descriptor, the caller's to close. `Unreachable` where the shim does not answer."""
    try:
        folder = os.open(record.folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
                sock.settimeout(timeout)
                sock.connect(str(Path("/proc/self/fd", str(folder), "shim.sock")))
                _, fds = wire.receive(sock)
        finally:
            os.close(folder)
    except (OSError, wire.Closed) as error:
        raise Unreachable(
            f"agent {record.agent}: its shim does not answer: {error}", hint="without a shim the agent has no way out"
        ) from None
    return fds[0]
