"""Force a seccomp filter on every thread of a live, unwilling tree, through ptrace.

The order is the point. Freeze, so that nothing forks away. Seize and interrupt every thread. Thaw: an injected call
does not run in a frozen thread, and none runs on its own, since all are stopped. Inject. Freeze again before letting
go, if the tree was frozen or if anything was not sealed. What was let go carries the filter, and so do its children.

A thread inside vfork stops only when its child has let it: that child is sealed and set free first, runs under the
filter, and its parent is caught on its way out, before it runs an instruction of its own.

Runs in a process of its own with one thread: a tracer is a thread, and if it dies its armed tracees are killed.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from clawback.enforcement.kernel.ptrace import SUPPORTED, Gone, Tracee, pause, quiet
from clawback.enforcement.quarantine import freeze, seal_record, tree
from clawback.enforcement.quarantine.implant import Work, seal_processes
from clawback.enforcement.quarantine.seal_record import Mark
from clawback.enforcement.sandbox import filters
from clawback.enforcement.sandbox.job import Restrictions
from clawback.enforcement.sandbox.record import Sandbox

__all__ = ["WORKER", "run"]

WORKER = "a kernel worker of an io_uring, which no filter reaches"
"""Why a thread of that kind is not sealed."""

_SEIZE_SECONDS = 5.0
"""For a tree without a freezer, which may fork meanwhile; half of what a helper is given in all."""


def run(*, box: dict[str, Any], patience: float) -> dict[str, Any]:
    """Seal. Takes `box` (a `Sandbox` as a mapping) and `patience` (seconds for threads inside vfork).

    Returns `sealed` (how many threads), `unsealed` (thread → why), `open` (thread → why it has no Landlock rules) and
    `frozen` (whether the tree was left so).
    """
    sandbox = Sandbox(**box)
    if not SUPPORTED:
        error = "injection is not written for this machine"
        return {"sealed": 0, "unsealed": {}, "open": {}, "frozen": False, "error": error}
    was_frozen = bool(sandbox.cgroup) and tree.read(f"{sandbox.cgroup}/cgroup.freeze").strip() == "1"
    work = Work()
    quiet()
    keep = True  # frozen, unless everything was sealed
    try:
        _seize(sandbox, work, patience)
        keep = was_frozen or bool(work.failed) or freeze.ordered(sandbox)
    finally:
        if sandbox.cgroup and keep:
            freeze.set_frozen(sandbox, wanted=True, patience=0)
        for tracee in work.tracees.values():
            tracee.release()
        if sandbox.cgroup and keep:
            freeze.set_frozen(sandbox, wanted=True, patience=1.0)
    return {
        "sealed": len(work.sealed - work.gone),
        "unsealed": {str(tid): reason for tid, reason in work.failed.items()},
        "open": {
            str(tid): work.open.get(tid, "not reached") for tid in work.sealed - work.gone if tid not in work.walled
        },
        "frozen": keep and bool(sandbox.cgroup),
    }


def _seize(box: Sandbox, work: Work, patience: float) -> None:
    if box.cgroup and not freeze.set_frozen(box, wanted=True):
        work.failed[box.pid] = "the tree could not be frozen first"
    waiting: set[int] = set()
    end = time.monotonic() + _SEIZE_SECONDS
    while new := [tid for tid in tree.threads(box) if tid not in work.tracees and tid not in work.gone]:
        inside = frozenset(tree.threads(box))
        for tid in new:
            _catch(tid, work, inside)
        if time.monotonic() > end:
            work.failed[box.pid] = "it grew faster than it could be seized"
            break
        # Without a freezer, a thread may have forked between being seized and stopping: hence the next look.
        waiting = _wait(work, set(work.tracees) - work.gone, 0.05)
    marks = _baseline(box, work)
    if box.cgroup:
        freeze.set_frozen(box, wanted=False)
    seal_processes(work, set(work.tracees) - waiting - work.gone)
    end = time.monotonic() + patience
    while waiting - work.gone and time.monotonic() < end:
        _free_children_of(waiting, work)
        still = _wait(work, waiting - work.gone, 0.01)
        seal_processes(work, waiting - still - work.gone)
        waiting = still
    _keep(box, work, marks)
    for tid in waiting - work.gone - work.sealed:
        work.failed[tid] = "inside vfork, and its child does not end"


def _catch(tid: int, work: Work, inside: frozenset[int]) -> None:
    reason = ""
    for _ in tree.until(0.1):
        try:
            if tree.kernel_worker(tid):
                work.gone.add(tid)
                work.failed[tid] = WORKER
                return
            tracee = Tracee(tid, int(_field(tid, "Tgid")))
            tracee.interrupt()
            work.tracees[tid] = tracee
            return
        except (Gone, FileNotFoundError, ProcessLookupError):
            work.gone.add(tid)
            return
        except OSError as error:  # EPERM is also the answer of a thread that is just ending
            reason = f"could not be seized: {error.strerror}"
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                tracer = int(_field(tid, "TracerPid"))
                if _field(tid, "State")[:1] in {"Z", "X", "0"}:
                    work.gone.add(tid)
                    return
                if tracer in inside:
                    # Frozen or not, it dies, and lets go of what it traced: that thread stays where the freezer has it.
                    os.kill(tracer, signal.SIGKILL)
                elif tracer:
                    reason += f", because process {tracer} outside traces it"
    work.gone.add(tid)
    work.failed[tid] = reason


def _wait(work: Work, tids: set[int], seconds: float) -> set[int]:
    """Those that have not stopped in this time."""
    left = set(tids)
    end = time.monotonic() + seconds
    while left:
        for tid in tuple(left):
            try:
                if work.tracees[tid].poll_stopped():
                    left.discard(tid)
            except Gone:
                left.discard(tid)
                work.gone.add(tid)
        if not left or time.monotonic() > end:
            break
        pause()
    return left


def _baseline(box: Sandbox, work: Work) -> dict[int, Mark]:
    """Written before anything is injected, with what could not be seized; what was done before stays done."""
    known, marks = seal_record.read(box), dict[int, Mark]()
    work.given = _given(box)
    for tid in (*work.tracees, *work.failed):
        try:
            ticks, filters = tree.start_ticks(tid), tree.status(tid).filters
        except (FileNotFoundError, ProcessLookupError):
            work.gone.add(tid)
            continue
        mark = known.get(tid)
        if mark is None or mark.ticks != ticks:
            mark = Mark(ticks, filters)
        marks[tid] = mark
        work.before[tid] = filters
        # Sealed, it adds none; a seal that failed leaves it free to, after it was first written down.
        work.unsealed[tid] = mark.filters if mark.sealed else filters
        if mark.sealed and tid in work.tracees:
            work.sealed.add(tid)
        if mark.walled and tid in work.tracees:
            work.walled.add(tid)
    seal_record.write(box, marks)
    return marks


def _given(box: Sandbox) -> int | None:
    """How many filters the launch put on every thread, with those that this process is under itself, as a core in a
    container is. None where that is not written down.
    """
    try:
        given = Restrictions.from_json(json.loads(Path(box.folder, "restrictions.json").read_text()))
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return tree.status(os.getpid()).filters + len(filters.programs(given.syscalls)) + bool(given.deny)


def _keep(box: Sandbox, work: Work, marks: dict[int, Mark]) -> None:
    """What the kernel took, once it has: whoever dies in between has sealed nothing that it claims."""
    for tid, mark in marks.items():
        marks[tid] = replace(mark, sealed=mark.sealed or tid in work.sealed, walled=mark.walled or tid in work.walled)
    seal_record.write(box, marks)


def _free_children_of(waiting: set[int], work: Work) -> None:
    """Let sealed children of threads inside vfork run, under the filter, so that their parents come out."""
    parents = {work.tracees[tid].pid for tid in waiting}
    for tid, tracee in work.tracees.items():
        if tid in work.sealed and tracee.stopped and tid not in work.gone:
            try:
                if int(_field(tid, "PPid")) in parents:
                    tracee.release()
            except (FileNotFoundError, ProcessLookupError):
                work.gone.add(tid)


def _field(tid: int, name: str) -> str:
    """Of /proc/TID/status; `0` where there is none."""
    for line in tree.read(f"/proc/{tid}/status").splitlines():
        key, _, value = line.partition(":")
        if key == name:
            return value.strip()
    return "0"
