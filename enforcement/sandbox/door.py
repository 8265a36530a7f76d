"""Ask a sandbox's shim for the gateway's listening socket: how a restarted core gets it back."""

from __future__ import annotations

import os
import socket
from pathlib import Path

from clawback.enforcement.sandbox import wire
from clawback.enforcement.sandbox.record import Sandbox
from clawback.errors import Unreachable

__all__ = ["fetch_listener"]


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
