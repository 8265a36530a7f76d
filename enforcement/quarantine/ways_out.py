"""Descriptors that lead out of a sandbox past its network: sockets made elsewhere, pipes and terminals lent at launch.

Cutting the network namespace does not reach them. A socket that nobody outside holds too is shut down by a copy of it,
for good, as connections are. A pipe or terminal, or a socket that its lender uses as well, is named: taking it from a
process that does not cooperate would be no isolation that release undoes, and shutting it would cut its lender off.
What leads to the shim (`output.log`, bounded) is the sandbox's own.
"""

from __future__ import annotations

import contextlib
import os
import socket
import stat
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from clawback.enforcement.kernel import libc, unix_sockets
from clawback.enforcement.kernel.open_gate import beneath
from clawback.enforcement.quarantine import mounted, tree
from clawback.enforcement.sandbox.record import Sandbox

__all__ = ["Way", "found", "named", "reachable", "shims", "shut"]

_NAMED = 16
_CUT = frozenset({socket.AF_INET, socket.AF_INET6, socket.AF_UNIX, socket.AF_NETLINK})
"""What isolation has cut, or what reaches nobody, when it was made in the agent's own namespace."""
_WRITES = 0o200  # of the link in /proc/PID/fd: how it was opened
_OTHERS_WRITE = 0o002


@dataclass(frozen=True, slots=True)
class Way:
    """`process 12 has pipe:[345] open as 1, which leads out of the sandbox`. `inode` is 0 for what is no socket."""

    pid: int
    descriptor: int
    what: str
    inode: int = 0

    @property
    def text(self) -> str:
        """For people."""
        return f"process {self.pid} has {self.what[:128]} open as {self.descriptor}, which leads out of the sandbox"


def shims(box: Sandbox) -> frozenset[str]:
    """What its shim has open: what leads there is the sandbox's own."""
    return frozenset(_links(box.shim_pid).values()) if _is(box.shim_pid, box.shim_start_ticks) else frozenset()


def found(box: Sandbox, diag: socket.socket | None, own: frozenset[str], seen: mounted.View) -> tuple[Way, ...]:
    """All of every process; `diag` is a sock_diag socket in the agent's namespace, `own` what `shims` said, `seen` the
    agent's mounts.

    Without `diag` a Unix socket made inside whose peer is outside is not found; the caller has to say so.
    """
    peers = unix_sockets.peers(diag) if diag else {}
    links: dict[int, dict[int, str]] = {}
    for pid in tree.processes(box):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            links[pid] = _links(pid)
    held = (what for one in links.values() for what in one.values() if what.startswith("socket:["))
    known = {None, *(int(what[8:-1]) for what in held)}
    inside = Path(f"/proc/{box.pid}/ns/net").stat().st_ino
    ways: list[Way] = []
    pipes: dict[str, list[Way]] = {}
    ends: dict[str, int] = {}
    for pid, descriptors in links.items():
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            handle = os.pidfd_open(pid)
            try:
                for number, what in descriptors.items():
                    way = Way(pid, number, what)
                    if what.startswith("pipe:["):
                        pipes.setdefault(what, []).append(way)
                        ends[what] = ends.get(what, 0) | _mode(way)
                    elif what.startswith("socket:["):
                        inode = int(what[8:-1])
                        if peers.get(inode, -1) in known:
                            continue  # its peer is a process's of the sandbox too, or it has none
                        shim = box.shim_pid if pid == box.pid else -1
                        if _leads_out(handle, number, -1 if inode in peers else inside, shim=shim):
                            ways.append(Way(pid, number, what, inode))
                    elif not what.startswith("anon_inode:") and _device(way, seen.private):
                        ways.append(way)
            finally:
                os.close(handle)
    for what, holders in pipes.items():
        if what not in own and ends[what] != 0o600:  # with both ends inside, it is the agent's own
            ways += [way for way in holders if not _dead(way)]
    return tuple(ways)


def shut(ways: tuple[Way, ...], box: Sandbox) -> tuple[Way, ...]:
    """Shut down each socket that nobody outside the sandbox holds; the ways that are left."""
    sockets = {way.inode for way in ways if way.inode}
    if not sockets:
        return ways
    shared = _held_outside(sockets, frozenset(tree.processes(box)))
    return tuple(way for way in ways if not way.inode or way.inode in shared or not _shut(way))


def reachable(box: Sandbox, seen: mounted.View) -> list[str]:
    """Sockets bound outside to a path that the agent sees and may write to: no network namespace stands before one."""
    shared = {one.path: one.device not in seen.private for one in seen.mounts}
    with tree.process_folder(box) as folder:
        root = os.open("root", os.O_PATH | os.O_CLOEXEC, dir_fd=folder)
        try:
            return [
                f"the socket {path[:256]!r}, bound outside, can be connected to"
                for path in _on_shared(unix_sockets.bound_paths(), shared)
                if _may_connect(root, path, box.uid)
            ]
        finally:
            os.close(root)


def named(ways: tuple[Way, ...]) -> list[str]:
    """In words, the first of them one by one."""
    lines = [way.text for way in ways[:_NAMED]]
    return lines if len(ways) <= _NAMED else [*lines, f"{len(ways) - _NAMED} more descriptors lead out"]


def _is(pid: int, ticks: int) -> bool:
    try:
        return tree.start_ticks(pid) == ticks
    except ProcessLookupError:
        return False


def _links(pid: int) -> dict[int, str]:
    """Descriptor → what /proc says that it is."""
    links = {}
    for name in tree.names(f"/proc/{pid}/fd"):
        with contextlib.suppress(FileNotFoundError):
            links[int(name)] = os.readlink(f"/proc/{pid}/fd/{name}")  # noqa: PTH115 - thousands of them
    return links


def _mode(way: Way) -> int:
    """0o400 for an end that reads, 0o200 for one that writes."""
    with contextlib.suppress(FileNotFoundError):
        return os.lstat(f"/proc/{way.pid}/fd/{way.descriptor}").st_mode & 0o600
    return 0


@contextlib.contextmanager
def _copy(handle: int, number: int) -> Iterator[int]:
    """A copy of a process's descriptor; -1 where it has closed it, `PermissionError` where we may not."""
    try:
        descriptor = libc.pidfd_getfd(handle, number)
    except PermissionError:
        raise
    except OSError:
        yield -1
        return
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _leads_out(handle: int, number: int, inside: int, *, shim: int) -> bool:
    """A socket's. `inside` is the namespace whose sockets are cut, -1 for one whose peer is elsewhere."""
    with _copy(handle, number) as descriptor:
        if descriptor < 0 or unix_sockets.dead(descriptor):
            return False
        with socket.socket(fileno=os.dup(descriptor)) as one:
            if unix_sockets.namespace(descriptor) == inside:
                return one.family not in _CUT
            return unix_sockets.peer_pid(one) != shim


def _dead(way: Way) -> bool:
    with contextlib.suppress(ProcessLookupError):
        handle = os.pidfd_open(way.pid)
        try:
            with _copy(handle, way.descriptor) as descriptor:
                return descriptor < 0 or unix_sockets.dead(descriptor)
        finally:
            os.close(handle)
    return True


def _device(way: Way, private: frozenset[str]) -> bool:
    """A terminal, or a pipe with a name, of a file system that is not the sandbox's own."""
    with contextlib.suppress(FileNotFoundError):
        status = Path(f"/proc/{way.pid}/fd/{way.descriptor}").stat()
        if f"{os.major(status.st_dev)}:{os.minor(status.st_dev)}" in private:
            return False
        # 1: null, zero, full, random and urandom: they lead nowhere.
        return stat.S_ISFIFO(status.st_mode) or (stat.S_ISCHR(status.st_mode) and os.major(status.st_rdev) != 1)
    return False


def _held_outside(sockets: set[int], inside: frozenset[int]) -> set[int]:
    wanted = {f"socket:[{inode}]": inode for inode in sockets}
    held = set()
    for name in tree.names("/proc"):
        if name.isdigit() and int(name) not in inside:
            with contextlib.suppress(OSError):
                held |= {wanted[what] for what in _links(int(name)).values() if what in wanted}
    return held


def _shut(way: Way) -> bool:
    """Whether nothing passes by it now."""
    with contextlib.suppress(ProcessLookupError):
        handle = os.pidfd_open(way.pid)
        try:
            with _copy(handle, way.descriptor) as descriptor:
                if descriptor < 0:
                    return True
                with socket.socket(fileno=os.dup(descriptor)) as one, contextlib.suppress(OSError):
                    one.shutdown(socket.SHUT_RDWR)
                return unix_sockets.dead(descriptor)
        finally:
            os.close(handle)
    return True


def _on_shared(paths: Sequence[str], mounts: dict[str, bool]) -> list[str]:
    """Those of the sorted paths that lie on mounts which others than the agent see too. With a thousand agents there
    are as many paths, most of them below no such mount.
    """
    found = []
    for top in (path for path, shared in mounts.items() if shared):
        prefix = top.rstrip("/") + "/"
        for path in islice(paths, bisect_left(paths, prefix), None):
            if not path.startswith(prefix):
                break
            if _shared(path, mounts):
                found.append(path)
    return list(dict.fromkeys(found))


def _shared(path: str, mounts: dict[str, bool]) -> bool:
    """Whether the mount that a path lies on is one that others than the agent see too."""
    while path:
        path = path.rpartition("/")[0]
        found = mounts.get(path or "/")
        if found is not None:
            return found
    return False


def _may_connect(root: int, path: str, uid: int) -> bool:
    with contextlib.suppress(OSError):
        descriptor = beneath(root, path)
        try:
            there, here = os.fstat(descriptor), Path(path).stat()
        finally:
            os.close(descriptor)
        same = (there.st_dev, there.st_ino) == (here.st_dev, here.st_ino) and stat.S_ISSOCK(here.st_mode)
        return same and (here.st_mode & _OTHERS_WRITE != 0 or here.st_uid == uid)
    return False
