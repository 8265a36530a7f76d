"""Level 1: stop every process of an agent where it stands. Nothing is lost; release lets it go on."""

from __future__ import annotations

import contextlib
import os
import signal
from dataclasses import asdict
from pathlib import Path

from clawback.enforcement.kernel import libc
from clawback.enforcement.quarantine import tree
from clawback.enforcement.quarantine.helper import Run
from clawback.enforcement.quarantine.result import Clock
from clawback.enforcement.sandbox.record import Sandbox
from clawback.errors import NotEnforced
from clawback.model import Level, LevelResult

__all__ = ["ORDER", "apply", "frozen", "order", "ordered", "probe", "release", "set_frozen", "stands_still", "strike"]

ORDER = "freeze.order"
"""In the sandbox's folder while it is to be frozen."""

_NO_CGROUP = "stopped by signal, not by the cgroup freezer: there is no cgroup of its own to freeze"
_ENDED = "the sandbox has ended: no process is left"
_STOPPED = frozenset("TtZX")
_BY_SIGNAL = frozenset("Tt")
_DEAD = frozenset("ZX")
_BY_THREADS = frozenset({"D", tree.HEADLESS})  # of whose threads the first one's state says nothing
_NAMED = 16
_READINGS = 3  # of the tree: one to act on, and two that may agree
_LOOK = 0.5  # seconds that a probe may take to find the tree standing still


def apply(box: Sandbox, run: Run | None = None, *, patience: float = 1.0) -> LevelResult:
    """Freeze the cgroup's leaf and read `frozen 1` back; without a cgroup, SIGSTOP until nothing runs. Seconds.

    `run` is used without a cgroup alone; without it too, an agent that forks and exits fast enough may not be caught.
    """
    clock = Clock(Level.FREEZE)
    if not box.cgroup:
        failed = _stop_all(box, run, patience)
        return _judge_signals(box, clock, *failed)
    strike(box)
    order(box)
    # Written again: a seal under way thaws for a moment, and from now on finds the order when it is done.
    set_frozen(box, wanted=True, patience=patience)
    for pid in _strays(box):
        with contextlib.suppress(OSError):  # it has ended, or the reading says that it is still outside
            tree.write(f"{box.cgroup}/cgroup.procs", str(pid))
            set_frozen(box, wanted=True, patience=patience)
    return _judge(box, clock)


def strike(box: Sandbox) -> None:
    """Tell the kernel to freeze the leaf, and nothing else: no file is written, nothing is read back."""
    if box.cgroup:
        with contextlib.suppress(FileNotFoundError):  # gone: `apply` says so
            tree.write(f"{box.cgroup}/cgroup.freeze", "1")


def probe(box: Sandbox) -> LevelResult:
    """Whether nothing of the agent runs."""
    return _judge(box, Clock(Level.FREEZE))


def release(box: Sandbox, *, patience: float = 1.0) -> LevelResult:
    """Let it run again."""
    clock = Clock(Level.FREEZE)
    with contextlib.suppress(OSError):
        Path(box.folder, ORDER).unlink(missing_ok=True)
    if box.cgroup:
        if set_frozen(box, wanted=False, patience=patience):
            return clock.none(_ENDED if tree.gone(box) else f"{_count(len(tree.processes(box)))} thawed")
        return clock.full("not thawed: cgroup.events still says frozen")
    stopped: list[int] = []
    for _ in tree.until(patience, least=_READINGS):
        states = tree.reading(box).states
        # One inside the kernel still has its stop before it; continued now, it never comes to it.
        stopped = [pid for pid, state in states.items() if _is_stopped(pid, state)]
        if not stopped:
            return clock.none(f"{_count(len(states))} continued" if states else _ENDED)
        for pid in stopped:
            _signal(pid, signal.SIGCONT)
    return clock.partial(f"{_count(len(stopped))} still stopped", _NO_CGROUP)


def order(box: Sandbox) -> None:
    """Leave the word that the agent is to stand still, by which a seal, that thaws it for a moment, goes when done."""
    # A full disk must not keep an agent running: without the name only a seal at the same moment could thaw it. It is
    # one more name of a file that is there, for a file of its own would want an inode, and a storm wants a thousand.
    with contextlib.suppress(OSError):
        os.link(f"{box.folder}/agent.json", f"{box.folder}/{ORDER}")


def ordered(box: Sandbox) -> bool:
    """Whether the sandbox is to be frozen, whatever it is at this moment."""
    return Path(box.folder, ORDER).exists()


def frozen(box: Sandbox) -> bool:
    """What the kernel says of the leaf. `FileNotFoundError` where the cgroup is gone."""
    return "frozen 1" in tree.read(f"{box.cgroup}/cgroup.events")


def stands_still(box: Sandbox) -> bool:
    """Whether its own cgroup is frozen; not where it has none, or is gone."""
    try:
        return bool(box.cgroup) and frozen(box)
    except FileNotFoundError:
        return False


def set_frozen(box: Sandbox, *, wanted: bool, patience: float = 1.0) -> bool:
    """Write `cgroup.freeze` and read `cgroup.events` until it agrees or the time is over; whether it agreed.

    Read again and again: `poll` on that file wakes 3 to 16 ms late. A leaf that is gone holds nothing that could run.
    """
    try:
        tree.write(f"{box.cgroup}/cgroup.freeze", "1" if wanted else "0")
        for _ in tree.until(patience):
            if frozen(box) is wanted:
                return True
    except FileNotFoundError:
        return True
    return False


def _judge(box: Sandbox, clock: Clock) -> LevelResult:
    if not box.cgroup:
        return _judge_signals(box, clock)
    try:
        held = frozen(box)
    except FileNotFoundError:
        clock.count(processes=0, frozen=0)
        return clock.full(_ENDED)
    number = len(tree.processes(box))
    outside = _strays(box)
    clock.count(processes=number + len(outside), frozen=number if held else 0)
    if number == 0 and tree.gone(box):
        return clock.full(_ENDED)
    if held and outside:
        missing = [f"process {pid} is outside the frozen cgroup" for pid in outside[:_NAMED]]
        return clock.partial(f"{number} of {_count(number + len(outside))} frozen", *missing)
    if held:
        return clock.full(f"{_count(number)} frozen")
    return clock.none(f"{_count(number)} not frozen", "cgroup.events does not say frozen")


def _strays(box: Sandbox) -> tuple[int, ...]:
    try:
        return tree.strays(box) if tree.start_ticks(box.pid) == box.start_ticks else ()
    except ProcessLookupError:
        return ()


def _judge_signals(box: Sandbox, clock: Clock, *failed: str) -> LevelResult:
    still = _still(box, None, _LOOK)
    if still is None:
        states = tree.reading(box).states.values()
        clock.count(processes=sum(s not in _DEAD for s in states), frozen=sum(s in _BY_SIGNAL for s in states))
        return clock.none("processes still run, fork or end", _NO_CGROUP, *failed)
    if not still:
        clock.count(processes=0, frozen=0)
        return clock.full(_ENDED)
    clock.count(processes=len(still), frozen=len(still))
    # `_still` lets nothing pass that could run an instruction of its own: each stands, or will on its way out.
    leaving = sum(state == "D" for state in still.values())
    note = f", {leaving} of them inside the kernel until a stopped child lets go" if leaving else ""
    return clock.partial(f"{len(still)} of {_count(len(still))} stopped{note}", _NO_CGROUP, *failed)


def _stop_all(box: Sandbox, run: Run | None, patience: float) -> list[str]:
    """What could not be done, in words. The first process first: then nobody reaps, and what forks and exits faster
    than it is read leaves zombies.
    """
    failed: list[str] = []
    if not tree.ancestry(box):
        return failed
    _signal(box.pid, signal.SIGSTOP)
    if run is not None:
        try:
            run("clawback.enforcement.quarantine.signals:run", {"box": asdict(box), "number": int(signal.SIGSTOP)})
        except (OSError, NotEnforced) as error:
            failed.append(f"not signalled all at once, only one by one: {error}")
    _still(box, signal.SIGSTOP, patience)
    return failed


def _still(box: Sandbox, send: signal.Signals | None, seconds: float) -> dict[int, str] | None:
    """The tree, once two readings of it are the same and nothing in them runs; None if that does not come about.

    With `send`, what runs meanwhile is signalled. A process that forks and ends between two readings leaves a zombie,
    since the first process, which would reap it, stands still: the readings differ.
    """
    last: tree.Reading | None = None
    for _ in tree.until(seconds, least=_READINGS):
        now = tree.reading(box)
        running = [pid for pid, state in now.states.items() if not _stands(pid, state)]
        if not running and last is not None and last.states == now.states:
            return {pid: state for pid, state in now.states.items() if state not in _DEAD}
        last = now
        for pid in running:
            if send is not None:
                _signal(pid, send)
                if now.states[pid] in _BY_THREADS:
                    _signal_each_thread(pid, send)
    return None


def _stands(pid: int, state: str) -> bool:
    """It is stopped, or will be on its way out of the kernel, where it waits uninterruptibly (its vfork's child is
    stopped). Then each of its threads must be so: a signal that waits for one of them stops no other, and a process
    would run on behind a first thread that waits for ever.
    """
    if state not in _BY_THREADS:
        return state in _STOPPED
    threads = _statuses(pid)
    return bool(threads) and all(
        thread.state in _STOPPED or (thread.state == "D" and thread.stop_pending) for thread in threads
    )


def _is_stopped(pid: int, state: str) -> bool:
    """There is something about it to continue."""
    if state not in _BY_THREADS:
        return state in _BY_SIGNAL
    return any(thread.state in _BY_SIGNAL or thread.stop_pending for thread in _statuses(pid))


def _statuses(pid: int) -> list[tree.Status]:
    """Of its threads; none if it ends meanwhile."""
    try:
        return [tree.status(tid) for tid in _threads(pid)]
    except (FileNotFoundError, ProcessLookupError):
        return []


def _threads(pid: int) -> list[int]:
    """Those that run its program."""
    return [tid for tid in map(int, tree.names(f"/proc/{pid}/task")) if not tree.kernel_worker(tid)]


def _signal_each_thread(pid: int, number: signal.Signals) -> None:
    """Whichever can take it stops them all."""
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        for tid in _threads(pid):
            libc.syscall("tgkill", pid, tid, number)


def _signal(pid: int, number: signal.Signals) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return  # ended by itself


def _count(number: int) -> str:
    return f"{number} process" if number == 1 else f"{number} processes"
