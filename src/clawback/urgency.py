"""Ask the kernel to run a thread at once whenever it has something to do.

A rogue agent may keep every processor busy, and must not thereby delay its own freeze: among ordinary threads a waking
one waits for the end of a slice, some milliseconds. Real time is meant for just that. It is for the few threads that
stand between an event and a freeze, which work for a millisecond and wait; what they fork or start is ordinary again.
"""

from __future__ import annotations

import os
import threading

__all__ = ["go_first"]

_PRIORITY = 1  # the lowest of the real-time ones: before all that is ordinary, after what the host itself put first
_NICE = -10


def go_first() -> str:
    """Put the calling thread before ordinary ones, as far as its rights go; says how: `real-time`, `nice` or `not`."""
    try:
        os.sched_setscheduler(0, os.SCHED_RR | os.SCHED_RESET_ON_FORK, os.sched_param(_PRIORITY))
        return "real-time"
    except PermissionError:
        pass
    try:
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICE)
        return "nice"
    except PermissionError:
        return "not"
