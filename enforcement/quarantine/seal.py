"""Level 4: force a narrower seccomp filter on every running thread. Cannot be undone: release relaunches the agent."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict

from clawback.enforcement.quarantine import seal_record, tree
from clawback.enforcement.quarantine.helper import Run
from clawback.enforcement.quarantine.inject import WORKER
from clawback.enforcement.quarantine.result import Clock
from clawback.enforcement.sandbox.record import Sandbox
from clawback.model import Level, LevelResult

__all__ = ["apply", "probe", "release"]

_ENDED = "the sandbox has ended: no process is left to seal"


def apply(box: Sandbox, run: Run, *, patience: float = 0.5) -> LevelResult:
    """Inject, then read back. Threads that could not be sealed leave the tree frozen. `patience` (s) is for vfork."""
    clock = Clock(Level.SEAL)
    if tree.gone(box):
        return clock.full(_ENDED)
    answer = run("clawback.enforcement.quarantine.inject:run", {"box": asdict(box), "patience": patience})
    missing = [f"thread {tid}: {reason}" for tid, reason in sorted(answer["unsealed"].items())]
    if answer.get("error"):
        missing.append(answer["error"])
    for reason, number in Counter(answer["open"].values()).items():
        missing.append(f"Landlock on {number} threads: {reason}")
    return _judge(box, clock, missing, " (left frozen)" if answer["frozen"] else "")


def probe(box: Sandbox) -> LevelResult:
    """Whether every thread is one that the sealed filter was put on, and still shows it in /proc."""
    return _judge(box, Clock(Level.SEAL), [], "")


def release(box: Sandbox) -> LevelResult:
    """Nothing takes a filter off a running thread: says how much of the seal holds."""
    clock = Clock(Level.SEAL)
    result = _judge(box, clock, [], "")
    if result.missing:
        return result
    return clock.full(f"{result.observed}; only a relaunch undoes it")


def _judge(box: Sandbox, clock: Clock, missing: list[str], note: str) -> LevelResult:
    threads = tree.threads(box)
    if not threads and tree.gone(box):
        return clock.full(_ENDED)
    marks = seal_record.read(box)
    sealed, walled, open_threads, workers = 0, 0, [], []
    for tid in threads:
        try:
            ticks, now = tree.start_ticks(tid), tree.status(tid)
            if tree.kernel_worker(tid):
                workers.append(tid)
                continue
        except (FileNotFoundError, ProcessLookupError):
            continue
        # A sealed thread starts no other: one that is not written down came from one that is not sealed.
        mark = marks.get(tid)
        known = mark is not None and mark.ticks == ticks
        if mark and known and mark.walled:
            walled += 1
        if mark and known and mark.sealed and now.filters > mark.filters and now.no_new_privs and now.seccomp == 2:
            sealed += 1
        else:
            open_threads.append(tid)
    unwalled = sealed + len(open_threads) - walled
    if unwalled and not any(line.startswith("Landlock") for line in missing):
        missing.append(f"Landlock on {unwalled} threads")
    missing += [f"thread {tid} has no sealed filter" for tid in open_threads if not _named(tid, missing)]
    missing += [f"thread {tid}: {WORKER}" for tid in workers if not _named(tid, missing)]
    number = sealed + len(open_threads) + len(workers)
    clock.count(processes=len(tree.processes(box)), threads=number, sealed=sealed, walled=walled)
    observed = f"{sealed} of {number} threads show the sealed filter{note}; Landlock was put on {walled}"
    return clock.judged(observed, tuple(missing), anything=sealed > 0)


def _named(tid: int, missing: list[str]) -> bool:
    return any(line.startswith(f"thread {tid}:") for line in missing)
