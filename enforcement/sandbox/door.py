"""`shim.sock`, where a shim gives out what it keeps: the gateway's listening socket, and the listener of a filter.

One request of one line, one answer (a message of `wire`):

    gateway     {} and the gateway's listening socket
    supervise   {"escalates": true}, the seccomp listener and the ledger (see `escalated`); whoever asked supervises for
                as long as it keeps the connection. {"escalates": false} where the policy escalates nothing.
"""

from __future__ import annotations

import contextlib
import os
import socket
from pathlib import Path
from typing import Any

from clawback.enforcement.kernel import namespaces
from clawback.enforcement.sandbox import wire
from clawback.enforcement.sandbox.escalated import Escalation
from clawback.enforcement.sandbox.record import Sandbox
from clawback.errors import Unreachable

__all__ = ["answer", "ask", "bind", "fetch_listener"]

_LONGEST = 16


def bind(folder: int) -> socket.socket:
    """The shim's end, bound through its folder's descriptor: a socket's path may have 107 bytes at most."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    sock.bind(f"/proc/self/fd/{folder}/shim.sock")
    os.chmod("shim.sock", 0o600, dir_fd=folder)
    sock.listen(8)
    sock.setblocking(False)
    return sock


def answer(door: socket.socket, listener: int, escalation: Escalation | None) -> None:
    """Give root or our own user what it asks for, nobody else anything."""
    with contextlib.suppress(OSError):
        peer, _ = door.accept()
        credentials = peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
        pid, uid = int.from_bytes(credentials[:4], "little"), int.from_bytes(credentials[4:8], "little")
        # Without root an agent has our own user id, in a user namespace that it cannot leave.
        if uid in {0, os.getuid()} and (uid != os.getuid() or namespaces.at_home(pid)):
            peer.settimeout(1.0)
            try:
                line = peer.recv(_LONGEST)
                if line == b"supervise\n" and escalation:
                    escalation.attach(peer)
                    return
                if line == b"supervise\n":
                    wire.send(peer, {"escalates": False})
                elif line == b"gateway\n":
                    wire.send(peer, {}, [listener])
            except OSError:
                peer.close()
                raise
        peer.close()


def ask(folder: str | Path, request: str, *, timeout: float) -> tuple[socket.socket, dict[str, Any], list[int]]:
    """Send a request to the shim of this instance folder: the connection, the answer and its descriptors, all the
    caller's to close. `OSError` or `wire.Closed` where it does not answer.
    """
    # Through the folder's descriptor: a socket's path may have 107 bytes at most.
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.settimeout(timeout)
        sock.connect(str(Path("/proc/self/fd", str(fd), "shim.sock")))
        sock.sendall(f"{request}\n".encode())
        message, fds = wire.receive(sock)
    except BaseException:
        sock.close()
        raise
    finally:
        os.close(fd)
    return sock, message, fds


def fetch_listener(record: Sandbox, *, timeout: float = 2.0) -> int:
    """A copy of the listening descriptor, the caller's to close. `Unreachable` where the shim does not answer."""
    try:
        sock, _, fds = ask(record.folder, "gateway", timeout=timeout)
    except (OSError, wire.Closed) as error:
        raise Unreachable(
            f"agent {record.agent}: its shim does not answer: {error}", hint="without a shim the agent has no way out"
        ) from None
    sock.close()
    return fds[0]
