"""Fetch an agent's way out again from the shim that keeps it, after the core was restarted."""

from __future__ import annotations

import os
import socket

import structlog

from clawback.enforcement.sandbox import wire
from clawback.enforcement.sandbox.record import Sandbox

__all__ = ["fetch_listener"]

_SECONDS = 2.0
_log = structlog.get_logger()


def fetch_listener(box: Sandbox) -> int:
    """The gateway's socket inside, from the shim that keeps it; -1 where the shim is gone or has none."""
    # Through the folder's descriptor: a socket's path may have 107 bytes at most.
    folder = os.open(box.folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as link:
            link.settimeout(_SECONDS)
            link.connect(f"/proc/self/fd/{folder}/shim.sock")
            _, descriptors = wire.receive(link)
    except (OSError, ValueError, wire.Closed) as error:
        _log.warning("no way out for an agent: its shim does not answer", agent=box.agent, error=str(error))
        return -1
    finally:
        os.close(folder)
    for descriptor in descriptors[1:]:
        os.close(descriptor)
    return descriptors[0] if descriptors else -1
