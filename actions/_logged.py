"""Whether what was denied was logged: the event of each denied attempt, looked for in the telemetry."""

from __future__ import annotations

import time
from collections.abc import Sequence
from urllib.parse import urlsplit

from clawback.action import Context
from clawback.model import (
    Attempt,
    Event,
    FileActivity,
    HttpActivity,
    KernelActivity,
    NetworkActivity,
    ProcessActivity,
)

__all__ = ["unlogged"]

_WAIT_SECONDS = 3.0
"""Writers are some ten milliseconds behind; a machine that is busy makes it more."""
_LOOK_SECONDS = 0.05
_PORTS = {"http": 80, "https": 443}


def unlogged(ctx: Context, agent: str, instance: str, denied: Sequence[Attempt], *, since_ns: int) -> set[Attempt]:
    """Those of the denied attempts, made from `since_ns` on, of which no event came in time."""
    left = dict.fromkeys(denied)
    end = time.monotonic() + _WAIT_SECONDS
    while left:
        events = ctx.world.telemetry.events(agent=agent, instance=instance, since_ns=since_ns).events
        for attempt in tuple(left):
            if any(_tells_of(event, attempt) for event in events):
                del left[attempt]
        if not left or time.monotonic() > end:
            break
        time.sleep(_LOOK_SECONDS)
    return set(left)


def _tells_of(event: Event, attempt: Attempt) -> bool:
    if not event.blocked:
        return False
    target = attempt.target
    if attempt.kind in ("connect", "http"):
        host, port = _place(attempt)
        there = isinstance(event, (NetworkActivity, HttpActivity)) and event.port == port
        return there and getattr(event, "host", "").lower().rstrip(".") == host
    if attempt.kind == "open":
        return isinstance(event, FileActivity) and event.path == target
    if attempt.kind == "syscall":
        return isinstance(event, KernelActivity) and event.syscall == target
    if attempt.kind == "spawn":
        executes = isinstance(event, KernelActivity) and event.syscall.startswith("execve")
        named = isinstance(event, FileActivity) and event.path == target
        return executes or named or (isinstance(event, ProcessActivity) and event.exe == target)
    return False


def _place(attempt: Attempt) -> tuple[str, int]:
    if attempt.kind == "connect":
        host, _, port = attempt.target.rpartition(":")
        return host.strip("[]").lower().rstrip("."), int(port) if port.isascii() and port.isdigit() else 0
    try:
        parts = urlsplit(attempt.target.partition(" ")[2])
        return (parts.hostname or "").lower().rstrip("."), parts.port or _PORTS.get(parts.scheme, 0)
    except ValueError:
        return "", 0
