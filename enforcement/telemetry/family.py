"""The processes of one agent as a tree, as they are at this moment: its workers, and what they started."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from clawback.enforcement.sandbox.record import Sandbox
from clawback.log import redact_text

__all__ = ["Member", "family"]

_MOST = 1024
_TEXT = 1024


@dataclass(frozen=True, slots=True)
class Member:
    """One process. `parent` is 0 for the sandbox's first; `depth` counts from 0 there; `threads` is how many it has.

    `exe` and `command` are the agent's words: bounded here, secrets taken out of the command, to be escaped when shown.
    """

    pid: int
    parent: int
    depth: int
    threads: int
    exe: str
    command: str


def family(box: Sandbox) -> tuple[Member, ...]:
    """Parents before their children, at most 1,024; empty where the sandbox has ended. What starts or ends meanwhile
    may be missing, and a child whose parent ended is its grandparent's or the first process's, as the kernel has it.
    """
    pids = _pids(box)
    parents: dict[int, int] = {}
    for pid in pids:
        found = _parent(pid)
        if found is not None:
            parents[pid] = found
    children: dict[int, list[int]] = {}
    for pid, parent in parents.items():
        children.setdefault(parent if parent in parents else 0, []).append(pid)
    members: list[Member] = []
    waiting = [(pid, 0, 0) for pid in sorted(children.get(0, ()), reverse=True)]
    while waiting and len(members) < _MOST:
        pid, parent, depth = waiting.pop()
        members.append(_member(pid, parent, depth))
        waiting += [(child, pid, depth + 1) for child in sorted(children.get(pid, ()), reverse=True)]
    return tuple(members)


def _pids(box: Sandbox) -> list[int]:
    if box.cgroup:
        try:
            return [int(word) for word in Path(box.cgroup, "cgroup.procs").read_text().split()]
        except OSError:  # removed with its last process
            return []
    found, at = [box.pid], 0
    while at < len(found) and len(found) < _MOST:
        try:
            found += map(int, Path(f"/proc/{found[at]}/task/{found[at]}/children").read_text().split())
        except OSError:  # it has ended
            pass
        at += 1
    return found


def _parent(pid: int) -> int | None:
    try:
        state, parent = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[:2]
    except (OSError, ValueError):
        return None
    return None if state in {b"Z", b"X"} else int(parent)


def _member(pid: int, parent: int, depth: int) -> Member:
    exe, command, threads = "", "", 0
    try:
        threads = len(os.listdir(f"/proc/{pid}/task"))  # noqa: PTH208 - names are wanted
        exe = os.fsencode(Path(f"/proc/{pid}/exe").readlink()).decode("utf-8", "backslashreplace")
        with Path(f"/proc/{pid}/cmdline").open("rb") as file:
            command = file.read(_TEXT).rstrip(b"\0").replace(b"\0", b" ").decode("utf-8", "backslashreplace")
    except OSError:  # it has just ended, or has no program
        pass
    return Member(pid, parent, depth, threads, exe[:_TEXT], redact_text(command))
