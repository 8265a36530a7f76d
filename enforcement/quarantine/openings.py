"""An agent's openings of files: refused by a holder from now on, tried from inside, let through again."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import signal
import stat
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from clawback.enforcement.kernel import capabilities, imports, libc
from clawback.enforcement.kernel.open_gate import absent, marked
from clawback.enforcement.quarantine import cover, holder, mounted, tree
from clawback.enforcement.quarantine.helper import Run
from clawback.enforcement.sandbox.record import Sandbox
from clawback.errors import NotEnforced

__all__ = ["NOT_HERE", "Seen", "alive", "end", "inside", "look", "order", "permit", "record", "refused"]

_NO_RIGHT = "file opens: without root nobody may be made to wait for an answer"
_NO_EVENTS = "file opens: this kernel has no fanotify permission events, by which they would be refused"
NOT_HERE = frozenset({_NO_RIGHT, _NO_EVENTS})
"""What this host lacks: applying again mends none of it."""
_NOT_HELD = "file opens: nobody refuses them, the holder is gone"
_HALF = "file opens: one of the two processes that refuse them is gone"
_NAMED = 16


@dataclass(frozen=True, slots=True)
class Seen:
    """`marks`: mounts that are asked about; `tried` and `refused`: places inside that a process with the agent's user
    id tried to open; `readable`: secrets whose first byte it could read, of all `secrets`; `missing` in words.
    """

    marks: int
    tried: int
    refused: int
    secrets: tuple[str, ...]
    readable: tuple[str, ...]
    missing: tuple[str, ...]


def order(box: Sandbox, readable: tuple[str, ...] | None) -> tuple[tuple[str, ...] | None, list[str]]:
    """What a new holder is to let through, None where none is to be made; and why none can be, in words.

    `readable` None: as ordered before. A holder that is whole, asks about every mount and has the same order is left
    as it is.
    """
    if lacking := _not_here():
        return None, [lacking]
    before = record(box)
    wanted = tuple(before.get("readable", ())) if readable is None else readable
    if before and wanted == tuple(before["readable"]) and not _lacking(box, before)[1]:
        return None, []
    return wanted, []


def refused(answer: dict[str, Any]) -> list[str]:
    """What a holder's answer, or its failure, says is not refused, in words."""
    if answer.get("errno") in {errno.EPERM, errno.EACCES}:
        return [_NO_RIGHT]
    if "error" in answer:
        return [f"file opens: {answer['error']}"]
    return [f"file opens below {path}: {reason}" for path, reason in sorted(answer["failed"].items())]


def permit(box: Sandbox) -> list[str]:
    """End the holder; what is left of it, in words."""
    for _ in tree.until(2.0):  # one that is replacing the other just now writes itself down a moment later
        before = record(box)
        end(before)
        if not alive(before):
            Path(box.folder, holder.RECORD).unlink(missing_ok=True)
            if not record(box):
                return []
    return ["file opens are still refused: the holder did not end"]


def look(box: Sandbox, run: Run, tried: dict[str, Any] | None = None) -> Seen:
    """From the kernel: who holds, and which mounts. From inside: what opens; `tried` where that was done already."""
    held = record(box)
    marks, missing = _lacking(box, held)
    if tried is None:
        try:
            tried = run("clawback.enforcement.quarantine.openings:inside", {"box": asdict(box)})
        except ProcessLookupError:
            raise
        except (OSError, NotEnforced) as error:
            tried = {"error": str(error)}
    if "error" in tried:
        return Seen(marks, 0, 0, (), (), (*missing, f"the files could not be tried from inside: {tried['error']}"))
    opened = [path for path, outcome in tried["places"].items() if outcome not in _REFUSALS]
    if held and marks:
        missing += [f"{path} opens from inside" for path in opened[:_NAMED]]
    return Seen(
        marks=marks,
        tried=len(tried["places"]),
        refused=len(tried["places"]) - len(opened),
        secrets=tuple(tried["secrets"]),
        readable=tuple(tried["readable"]),
        missing=tuple(missing),
    )


_REFUSALS = frozenset({"EPERM", "EACCES", "ENOENT"})


def inside(*, box: dict[str, Any]) -> dict[str, Any]:
    """In a child of one thread: join the agent's mount namespace under its user id and try. `places`: path → errno's
    name or `opened`, a folder or file for each mount; `secrets`, and `readable`, those of them with a first byte.
    """
    sandbox = Sandbox(**box)
    places = [one.path for one in mounted.mounts(sandbox) if one.kind != "proc" and one.source != cover.SOURCE]
    with tree.process_folder(sandbox) as folder:
        spaces = {kind: os.open(f"ns/{kind}", os.O_RDONLY | os.O_CLOEXEC, dir_fd=folder) for kind in ("user", "mnt")}
    secrets = cover.secrets(sandbox)
    root = capabilities.effective(capabilities.SYS_ADMIN)
    if not root:
        libc.setns(spaces["user"], libc.CLONE_NEWUSER)
    imports.close()
    libc.setns(spaces["mnt"], libc.CLONE_NEWNS)
    if root:  # without, it is the agent's user already
        os.setgroups([])
        os.setresgid(sandbox.uid, sandbox.uid, sandbox.uid)
        os.setresuid(sandbox.uid, sandbox.uid, sandbox.uid)
    readable = [path for path in secrets if _first_byte(path)]
    return {"places": {path: _try(path) for path in places}, "secrets": secrets, "readable": readable}


def _try(path: str) -> str:
    try:
        if not stat.S_IFMT(os.lstat(path).st_mode) & (stat.S_IFREG | stat.S_IFDIR):
            return "EPERM"  # a device: opening it reaches no file
        os.close(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC))
    except OSError as error:
        return errno.errorcode.get(error.errno or 0, str(error.errno))
    return "opened"


def _first_byte(path: str) -> bool:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        return os.read(descriptor, 1) != b""
    finally:
        os.close(descriptor)


def _not_here() -> str:
    if not capabilities.effective(capabilities.SYS_ADMIN):
        return _NO_RIGHT
    try:
        return _NO_EVENTS if absent() else ""
    except PermissionError:  # root, but not of the machine
        return _NO_RIGHT


def _lacking(box: Sandbox, record: dict[str, Any]) -> tuple[int, list[str]]:
    """How many mounts are asked about, and what is not as it should be."""
    pair = alive(record)
    if not pair:
        return 0, [_not_here() or _NOT_HELD]
    missing = [] if len(pair) == len(record["pids"]) else [_HALF]
    missing += [f"file opens wait: process {pid} is stopped" for pid in pair if tree.status(pid).state in "Tt"]
    try:
        asked = marked(pair[0], record["descriptor"])
    except OSError:
        return 0, [_NOT_HELD]
    there = [one for one in mounted.mounts(box) if one.kind != "proc" and one.source != cover.SOURCE]
    missing += [f"file opens below {one.path}: not refused" for one in there if one.number not in asked][:_NAMED]
    return len(asked), missing


def record(box: Sandbox) -> dict[str, Any]:
    """What the holder wrote of itself, `holder.RECORD`; empty where there is none."""
    try:
        record: dict[str, Any] = json.loads(Path(box.folder, holder.RECORD).read_text())
    except FileNotFoundError:
        return {}
    return record


def alive(record: dict[str, Any]) -> list[int]:
    """Of the recorded pair, those that live, and are not others with their numbers."""
    found = []
    for text, ticks in record.get("pids", {}).items():
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            if tree.start_ticks(text) == ticks and tree.status(int(text)).state not in "ZX":
                found.append(int(text))
    return found


def end(record: dict[str, Any]) -> None:
    """End a recorded pair: both at once, by their group, as one alone would be replaced by the other."""
    for pid in alive(record):
        with contextlib.suppress(ProcessLookupError):
            group = os.getpgid(pid)
            if group != os.getpgid(0):
                os.killpg(group, signal.SIGKILL)
