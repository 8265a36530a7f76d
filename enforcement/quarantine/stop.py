"""Level 5: kill every process of an agent at once. Evidence is its caller's duty, before."""

from __future__ import annotations

import os
import signal

from clawback.enforcement.quarantine import tree
from clawback.enforcement.quarantine.result import Clock
from clawback.enforcement.sandbox.record import Sandbox
from clawback.model import Level, LevelResult

__all__ = ["apply", "probe", "release"]


def apply(box: Sandbox, *, patience: float = 5.0) -> LevelResult:
    """`cgroup.kill`, which no fork outruns; without it SIGKILL to the first process, which ends its namespace."""
    clock = Clock(Level.STOP)
    if not _kill_cgroup(box):
        _kill_first(box)
    for _ in tree.until(patience):
        if tree.gone(box):
            break
    return _judge(box, clock)


def probe(box: Sandbox) -> LevelResult:
    """Whether any process is left."""
    return _judge(box, Clock(Level.STOP))


def release(box: Sandbox) -> LevelResult:
    """Cannot bring the dead back: says how much of the stop still holds."""
    clock = Clock(Level.STOP)
    result = _judge(box, clock)
    if result.missing:
        return result
    return clock.full("no process is left; only a relaunch starts the agent again")


def _judge(box: Sandbox, clock: Clock) -> LevelResult:
    if tree.gone(box):
        clock.count(processes=0)
        return clock.full("no process is left")
    left = len(tree.processes(box))
    clock.count(processes=left)
    return clock.none(f"{left} processes are alive", "the end of every process")


def _kill_cgroup(box: Sandbox) -> bool:
    if not box.cgroup:
        return False
    try:
        tree.write(f"{box.cgroup}/cgroup.kill", "1")
    except FileNotFoundError:  # the file is there since Linux 5.14; without the group nothing of it runs
        return tree.gone(box)
    return True


def _kill_first(box: Sandbox) -> None:
    try:
        with tree.process_folder(box):
            handle = os.pidfd_open(box.pid)
            try:
                # The folder proves whose number it was; the handle, opened after it, is checked to be the same.
                if tree.start_ticks(box.pid) == box.start_ticks:
                    signal.pidfd_send_signal(handle, signal.SIGKILL)
            finally:
                os.close(handle)
    except ProcessLookupError:
        return  # already gone; the reading after this says so
