"""Put the sealed filter, and Landlock's rules that allow nothing, on the stopped threads of processes."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

from clawback.enforcement.kernel.ptrace import CallError, Gone, NotStopped, Tracee
from clawback.enforcement.quarantine import tree
from clawback.enforcement.quarantine.borrow import borrowed, more_descriptors
from clawback.enforcement.quarantine.sealed import landlock_everything, sealed_program

__all__ = ["Work", "seal_processes"]

_SET_MODE_FILTER, _FLAG_TSYNC, _FLAG_LOG = 1, 1, 2
_SET_NO_NEW_PRIVS = 38


@dataclass
class Work:
    """Threads by id, and how each came out: `sealed` by seccomp, `walled` by Landlock; `failed`, `open` say why not.

    `before` counts a thread's filters when it was seized, `unsealed` those that it had without the sealed one, `given`
    those that the launch put on every thread, None where that cannot be seen.
    """

    tracees: dict[int, Tracee] = field(default_factory=dict)
    before: dict[int, int] = field(default_factory=dict)
    unsealed: dict[int, int] = field(default_factory=dict)
    given: int | None = None
    sealed: set[int] = field(default_factory=set)
    failed: dict[int, str] = field(default_factory=dict)
    gone: set[int] = field(default_factory=set)
    walled: set[int] = field(default_factory=set)
    open: dict[int, str] = field(default_factory=dict)


def seal_processes(work: Work, tids: set[int]) -> None:
    """Seal these threads, process by process; `work` says how each came out. A failure stays its own process's."""
    groups: dict[int, list[Tracee]] = {}
    for tid in tids - (work.sealed & work.walled):
        groups.setdefault(work.tracees[tid].pid, []).append(work.tracees[tid])
    for tracees in groups.values():
        try:
            _seal_process(tracees, work)
        except (OSError, NotStopped, ValueError) as error:
            for tracee in tracees:
                if tracee.tid not in work.sealed | work.gone:
                    work.failed[tracee.tid] = str(error)


def _seal_process(tracees: list[Tracee], work: Work) -> None:
    """All stopped threads of one process. A thread that waits inside vfork is reached by TSYNC all the same."""
    program = sealed_program()
    head = 16

    def block(at: int) -> bytes:
        """`struct sock_fprog`, the filter, and `struct landlock_ruleset_attr`."""
        return struct.pack("=HxxxxxxQ", len(program) // 8, at + head) + program + landlock_everything()

    with borrowed(tracees[0].tid, block) as place:
        for tracee in tracees:
            try:
                tracee.arm()
                if tracee.tid not in work.walled:
                    _wall_thread(tracee, place.instruction, place.spare + head + len(program), work)
                if tracee.tid not in work.sealed:
                    _seal_thread(tracee, place.instruction, place.spare, work)
            except Gone:
                work.gone.add(tracee.tid)


def _wall_thread(tracee: Tracee, instruction: int, attributes: int, work: Work) -> None:
    """Landlock's rules that allow nothing: no file opens any more. Thread by thread: it knows no TSYNC before ABI 8."""
    size = len(landlock_everything())
    if not size:
        work.open[tracee.tid] = "Landlock is not in this kernel"
        return
    try:
        if not tree.status(tracee.tid).no_new_privs:
            tracee.call("prctl", (_SET_NO_NEW_PRIVS, 1, 0, 0, 0), at=instruction)
        with more_descriptors(tracee.pid):
            rules = tracee.call("landlock_create_ruleset", (attributes, size, 0), at=instruction)
        try:
            tracee.call("landlock_restrict_self", (rules, 0), at=instruction)
        finally:
            tracee.call("close", (rules,), at=instruction)
    except CallError as error:  # it has as many layers of rules as the kernel allows
        work.open[tracee.tid] = str(error.strerror)
        return
    if not tracee.unfiltered and work.unsealed.get(tracee.tid) != work.given:
        # The filters of its launch let these calls through or refuse them; one of its own can answer 0 in the kernel's
        # place, and nothing in /proc shows Landlock's rules.
        work.open[tracee.tid] = "it has filters of its own, which may have answered for the kernel"
        return
    work.walled.add(tracee.tid)


def _seal_thread(tracee: Tracee, instruction: int, spare: int, work: Work) -> None:
    if not tree.status(tracee.tid).no_new_privs:
        tracee.call("prctl", (_SET_NO_NEW_PRIVS, 1, 0, 0, 0), at=instruction)
    try:
        diverged = tracee.call("seccomp", (_SET_MODE_FILTER, _FLAG_TSYNC | _FLAG_LOG, spare), at=instruction)
    except CallError:
        diverged = -1
    if diverged:
        # A thread has filters of its own that the others lack: each gets this one separately.
        tracee.call("seccomp", (_SET_MODE_FILTER, _FLAG_LOG, spare), at=instruction)
    newest = tracee.filter(tree.status(tracee.tid).filters - 1)
    if newest is not None and newest != sealed_program():
        raise ValueError("the kernel shows another filter than the one injected")
    for tid, other in work.tracees.items():
        reached = tid == tracee.tid or (other.pid == tracee.pid and not diverged)
        if reached and tid not in work.gone and tree.status(tid).filters > work.before.get(tid, 0):
            work.sealed.add(tid)
            work.failed.pop(tid, None)
    if tracee.tid not in work.sealed:
        raise ValueError("the kernel took the filter and does not show it")
