"""Level 1: stop every process of an agent where it stands. Nothing is lost; release lets it go on."""

from __future__ import annotations

import os
import signal

from clawback.enforcement.quarantine import tree
from clawback.enforcement.quarantine.result import Clock
from clawback.enforcement.sandbox.record import Sandbox
from clawback.model import Level, LevelResult

__all__ = ["apply", "frozen", "probe", "release", "set_frozen"]

_BY_SIGNAL = "stopped by signal, not by the cgroup freezer: there is no cgroup of its own to freeze"
_ENDED = "the sandbox has ended: no process is left"
_STOPPED = frozenset("TtZX")


def apply(box: Sandbox, *, patience: float = 1.0) -> LevelResult:
    """Freeze the cgroup's leaf and read `frozen 1` back; without a cgroup, SIGSTOP until nothing runs. Seconds."""
    clock = Clock(Level.FREEZE)
    if box.cgroup:
        set_frozen(box, wanted=True, patience=patience)
    else:
        _stop_all(box, patience)
    return _judge(box, clock)


def probe(box: Sandbox) -> LevelResult:
    """Whether nothing of the agent runs."""
    return _judge(box, Clock(Level.FREEZE))


def release(box: Sandbox, *, patience: float = 1.0) -> LevelResult:
    """Let it run again."""
    clock = Clock(Level.FREEZE)
    if box.cgroup:
        if set_frozen(box, wanted=False, patience=patience):
            return clock.none(_ENDED if tree.gone(box) else f"{_count(len(tree.processes(box)))} thawed")
        return clock.full("not thawed: cgroup.events still says frozen")
    for pid in tree.ancestry(box):
        _signal(pid, signal.SIGCONT)
    for _ in tree.until(patience):
        running, stopped = _by_state(box)
        if not stopped:
            return clock.none(f"{_count(len(running))} continued" if running else _ENDED)
    return clock.partial(f"{len(stopped)} of {len(running) + len(stopped)} processes still stopped", _BY_SIGNAL)


def frozen(box: Sandbox) -> bool:
    """What the kernel says of the leaf. `FileNotFoundError` where the cgroup is gone."""
    return "frozen 1" in tree.read(f"{box.cgroup}/cgroup.events")


def set_frozen(box: Sandbox, *, wanted: bool, patience: float = 1.0) -> bool:
    """Write `cgroup.freeze` and read `cgroup.events` until it agrees or the time is over; whether it agreed.

    Read again and again: `poll` on that file wakes 3 to 16 ms late. A leaf that is gone holds nothing that could run.
    """
    try:
        descriptor = os.open(f"{box.cgroup}/cgroup.freeze", os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(descriptor, b"1" if wanted else b"0")
        finally:
            os.close(descriptor)
        for _ in tree.until(patience):
            if frozen(box) is wanted:
                return True
    except FileNotFoundError:
        return True
    return False


def _judge(box: Sandbox, clock: Clock) -> LevelResult:
    if not box.cgroup:
        running, stopped = _by_state(box)
        if not running and not stopped:
            return clock.full(_ENDED)
        observed = f"{len(stopped)} of {len(running) + len(stopped)} processes stopped"
        return clock.partial(observed, _BY_SIGNAL) if not running else clock.none(observed, _BY_SIGNAL)
    try:
        held = frozen(box)
    except FileNotFoundError:
        return clock.full(_ENDED)
    number = len(tree.processes(box))
    if number == 0 and tree.gone(box):
        return clock.full(_ENDED)
    if held:
        return clock.full(f"{_count(number)} frozen")
    return clock.none(f"{_count(number)} not frozen", "cgroup.events does not say frozen")


def _stop_all(box: Sandbox, patience: float) -> None:
    """Until two readings are the same and nothing in them runs: what forks and exits faster than it is read is seen by
    the zombies that it leaves, since the first process, which would reap them, stands still.
    """
    last = None
    for _ in tree.until(patience):
        now = tree.reading(box)
        running = [pid for pid, state in now.states.items() if state not in _STOPPED]
        if not running and not now.vanished and last == now:
            return
        last = now
        for pid in running:
            _signal(pid, signal.SIGSTOP)


def _by_state(box: Sandbox) -> tuple[list[int], list[int]]:
    """Processes of which a thread may run, and those of which none does."""
    running: list[int] = []
    stopped: list[int] = []
    for pid in tree.ancestry(box):
        try:
            states = {tree.status(int(tid)).state for tid in tree.names(f"/proc/{pid}/task")}
        except (FileNotFoundError, ProcessLookupError):
            continue
        (stopped if states <= _STOPPED else running).append(pid)
    return running, stopped


def _signal(pid: int, number: signal.Signals) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return  # ended by itself


def _count(number: int) -> str:
    return f"{number} process" if number == 1 else f"{number} processes"
