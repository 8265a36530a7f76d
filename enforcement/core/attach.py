"""Fetch an agent's way out again from the shim that keeps it, after the core was restarted."""

from __future__ import annotations

import os

import structlog

from clawback.enforcement.sandbox import door, wire
from clawback.enforcement.sandbox.record import Sandbox

__all__ = ["fetch_listener"]

_SECONDS = 2.0
_log = structlog.get_logger()


def fetch_listener(box: Sandbox) -> int:
    """The gateway's socket inside, from the shim that keeps it; -1 where the shim is gone or has none."""
    try:
        link, _, descriptors = door.ask(box.folder, "gateway", timeout=_SECONDS)
    except (OSError, ValueError, wire.Closed) as error:
        _log.warning("no way out for an agent: its shim does not answer", agent=box.agent, error=str(error))
        return -1
    link.close()
    for descriptor in descriptors[1:]:
        os.close(descriptor)
    return descriptors[0] if descriptors else -1
