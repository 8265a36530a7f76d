"""Says which programs hold an agent's connection: their executables, by path and SHA-256, and their ancestors'.

Read from the kernel, never from what a process says of itself: the connection's inode from sock_diag, its holders from
the descriptors of the agent's processes, a program from /proc/PID/exe. A process that cannot be read, or a tree that
changes while it is read, is no answer.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import stat
from collections import OrderedDict
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Lock

from clawback.enforcement.kernel.sock_diag import inode_of, listed_inode_of
from clawback.enforcement.quarantine import inside, tree
from clawback.enforcement.sandbox.record import Sandbox
from clawback.errors import NotFound

__all__ = ["Holder", "Identifier", "Program"]

_ROUNDS = 8
_MOST_HOLDERS = 64
_MOST_ANCESTORS = 64
_MOST_BYTES = 1 << 30
_REMEMBERED = 512
_MOST_PATHS, _MOST_INSTANCES = 1024, 4096  # an agent may make programs without end; beyond, each counts as changed
_NUMBER = re.compile(r"[0-9]+")


@dataclass(frozen=True, slots=True)
class Program:
    """An executable. `path` as seen inside; `changed`: another file than this path first named for this instance."""

    path: str
    sha256: str
    changed: bool = False


@dataclass(frozen=True, slots=True)
class Holder:
    """A process that has the connection open; `ancestors` of it within the sandbox, nearest first."""

    pid: int
    program: Program
    ancestors: tuple[Program, ...]


class Identifier:
    """Thread-safe. Remembers digests by file, and for each instance which digest a path first had."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._digests: OrderedDict[tuple[int, ...], str] = OrderedDict()
        self._first: OrderedDict[str, dict[str, str]] = OrderedDict()

    def holders(self, box: Sandbox, local: tuple[str, int], remote: tuple[str, int]) -> tuple[Holder, ...]:
        """Who has the connection from `local` to `remote`, both as seen inside, open. At least one.

        `NotFound` where it cannot be told: the connection or its last holder is gone, or the tree never stands still.
        """
        try:
            inode = _inode(box, local, remote)
        except OSError as error:
            raise NotFound(f"whose connection it is cannot be seen: {error.strerror}") from None
        before = _processes(box)
        for _ in range(_ROUNDS):
            found = [holder for pid in before if (holder := self._holder(box, pid, inode, before)) is not None]
            # A process that forked, passed the connection on and ended while we looked would have been missed.
            after = _processes(box)
            if after == before:
                break
            before = after
        else:
            raise NotFound("the agent starts processes faster than they can be looked at")
        if not found or len(found) > _MOST_HOLDERS:
            raise NotFound(f"{len(found)} processes hold the connection")
        return tuple(found)

    def _holder(self, box: Sandbox, pid: int, inode: int, tree_: dict[int, int]) -> Holder | None:
        try:
            if not _holds(pid, inode):
                return None
            program = self._program(box, pid)
            ancestors: list[Program] = []
            parent = _parent(pid)
            # The first process is the sandbox's own and no program of the agent.
            while parent in tree_ and parent != box.pid and len(ancestors) < _MOST_ANCESTORS:
                ancestors.append(self._program(box, parent))
                parent = _parent(parent)
        except (FileNotFoundError, ProcessLookupError):
            return None  # it has ended: the tree is not what it was, and is looked at again
        return Holder(pid, program, tuple(ancestors))

    def _program(self, box: Sandbox, pid: int) -> Program:
        path = str(Path(f"/proc/{pid}/exe").readlink())
        fd = os.open(f"/proc/{pid}/exe", os.O_RDONLY | os.O_CLOEXEC)
        try:
            digest = self._digest(fd)
        finally:
            os.close(fd)
        with self._lock:
            paths = self._first.setdefault(box.instance, {})
            first = paths.setdefault(path, digest) if path in paths or len(paths) < _MOST_PATHS else ""
            while len(self._first) > _MOST_INSTANCES:
                self._first.popitem(last=False)
        return Program(path, digest, changed=first != digest)

    def _digest(self, fd: int) -> str:
        found = os.fstat(fd)
        key = (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)
        with self._lock:
            if key in self._digests:
                self._digests.move_to_end(key)
                return self._digests[key]
        if not stat.S_ISREG(found.st_mode) or found.st_size > _MOST_BYTES:
            raise NotFound("a program that is no file, or a very large one")
        with os.fdopen(os.dup(fd), "rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        with self._lock:
            self._digests[key] = digest
            while len(self._digests) > _REMEMBERED:
                self._digests.popitem(last=False)
        return digest


def _inode(box: Sandbox, local: tuple[str, int], remote: tuple[str, int]) -> int:
    try:
        with inside.opened(box, (inside.DIAG,)) as (diag,):
            return inode_of(diag, local, remote)
    except OSError as error:
        # Without root the namespace cannot be entered by a process with threads; not every kernel has sock_diag.
        if error.errno not in {errno.EPERM, errno.EACCES, errno.EPROTONOSUPPORT}:
            raise
        for kind in ("tcp", "tcp6"):
            with tree.process_folder(box) as folder, suppress(ProcessLookupError):
                return listed_inode_of(tree.read(f"net/{kind}", dir_fd=folder, limit=1 << 24), local, remote)
        raise ProcessLookupError(errno.ESRCH, "no such connection") from None


def _processes(box: Sandbox) -> dict[int, int]:
    """Process → when it began: together they are one process."""
    found = {}
    for pid in tree.processes(box):
        try:
            found[pid] = tree.start_ticks(pid)
        except (FileNotFoundError, ProcessLookupError):
            continue
    return found


def _holds(pid: int, inode: int) -> bool:
    """One of its threads has it open; threads may have descriptors of their own."""
    wanted = f"socket:[{inode}]"
    for thread in tree.names(f"/proc/{pid}/task"):
        folder = os.open(f"/proc/{pid}/task/{thread}/fd", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            for name in os.listdir(folder):  # noqa: PTH208  # by its descriptor: the path may be another's by now
                try:
                    if os.readlink(name, dir_fd=folder) == wanted:
                        return True
                except FileNotFoundError:
                    continue  # closed while we looked
        finally:
            os.close(folder)
    return False


def _parent(pid: int) -> int:
    """Field 4 of /proc/PID/stat."""
    fields = tree.read(f"/proc/{pid}/stat").rpartition(")")[2].split()
    return int(fields[1]) if _NUMBER.fullmatch(fields[1]) else 0
