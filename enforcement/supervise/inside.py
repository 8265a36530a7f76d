"""The supervisor's hand inside a sandbox: a process under all that the agent is under, which makes calls in its name.

It is in the agent's namespaces, with its user, under its Landlock rules and its filters but the one that escalates, so
that what the supervisor allows is never more than the agent could do without escalation. Paths are looked up once; what
was found is kept open, decided on, and then used: nothing that the agent renames or relinks in between is followed.
"""

from __future__ import annotations

import ctypes
import errno
import itertools
import json
import os
import signal
import socket
import stat
import struct
from pathlib import Path
from typing import Any, NoReturn

from clawback.enforcement.kernel import capabilities, libc, namespaces
from clawback.enforcement.sandbox import init, restrict, wire
from clawback.enforcement.sandbox.job import INSIDE_ID, Restrictions

__all__ = ["run"]

_RESOLVE_NO_MAGICLINKS = 0x02
_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_SET_NAME = 1, 4, 15
_MOST = 64
_HOW = struct.Struct("=QQQ")
_CREATES = os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW


class _Found:
    """A place in the tree, held open: an object, or a folder and a name in it."""

    def __init__(self, fd: int, name: str | None, path: str) -> None:
        self.fd = fd
        self.name = name
        self.path = path


class _Hand:
    def __init__(self) -> None:
        self._found: dict[int, _Found] = {}
        self._numbers = itertools.count(1)

    def do(self, message: dict[str, Any], fds: list[int]) -> tuple[dict[str, Any], int | None]:
        """One request: the answer and a descriptor that goes with it. `drop` in it lets go of places first."""
        for number in message.pop("drop", ()):
            place = self._found.pop(number, None)
            if place is not None:
                os.close(place.fd)
        operation = getattr(self, f"op_{message.pop('op')}")
        answer = operation(fds, **message)
        return answer if isinstance(answer, tuple) else (answer, None)

    # Looking ---------------------------------------------------------------

    def op_look(
        self, fds: list[int], *, path: str, follow: bool, parent: bool, create: bool, resolve: int, own: list[int]
    ) -> dict[str, Any]:
        """Find a path: `parent` for a name in its folder whether it is there or not, `create` for that where it is
        missing. `own` is the caller's process and thread, which /proc/self means to it.
        """
        if len(self._found) >= _MOST:
            raise OSError(errno.ENFILE, "too many places held")
        start = fds[0] if fds else -100
        found = None if parent else self._object(start, path, follow=follow, missing=create, resolve=resolve, own=own)
        if found is None:
            found = self._name(start, path, resolve)
        number = next(self._numbers)
        self._found[number] = found
        status = os.fstat(found.fd)
        return {"found": number, "path": found.path, "new": found.name is not None, "mode": status.st_mode}

    def _object(
        self, start: int, path: str, *, follow: bool, missing: bool, resolve: int, own: list[int]
    ) -> _Found | None:
        try:
            fd = _lookup(start, path, 0 if follow else os.O_NOFOLLOW, resolve)
        except FileNotFoundError:
            if missing and path and not path.endswith("/"):
                return None
            raise
        real = _real(fd)
        ours = f"/proc/{os.getpid()}"
        if real == ours or real.startswith(ours + "/"):
            # /proc/self led to this process; it means the caller's own. A thread of ours is the caller's thread.
            rest = real[len(ours) :].replace(f"/task/{os.getpid()}", f"/task/{own[1]}", 1)
            os.close(fd)
            fd = _lookup(start, f"/proc/{own[0]}{rest}", 0 if follow else os.O_NOFOLLOW, 0)
            real = _real(fd)
        return _Found(fd, None, real)

    @staticmethod
    def _name(start: int, path: str, resolve: int) -> _Found:
        folder, _, name = path.rstrip("/").rpartition("/")
        if name in {"", ".", ".."}:
            raise OSError(errno.EINVAL if name else errno.EBUSY, "no name that could be made or removed")
        before = folder or ("/" if path.startswith("/") else ".")
        fd = _lookup(start, before, os.O_DIRECTORY, resolve)
        real = _real(fd)
        return _Found(fd, name, ("" if real == "/" else real) + "/" + name)

    # Doing -----------------------------------------------------------------

    def op_open(
        self, _fds: list[int], *, found: int, flags: int, mode: int, umask: int
    ) -> tuple[dict[str, Any], int | None]:
        """Open what was found, or make it; its descriptor goes with the answer."""
        place = self._found[found]
        os.umask(umask)
        if place.name is not None:
            # Whatever is there by now under this name, no link is followed.
            fd = os.open(place.name, flags | os.O_NOFOLLOW | os.O_CLOEXEC, mode, dir_fd=place.fd)
            return {"value": 0}, fd
        kind = os.fstat(place.fd).st_mode
        if flags & os.O_CREAT and flags & os.O_EXCL:
            raise OSError(errno.EEXIST, "it exists")
        if flags & os.O_DIRECTORY and not stat.S_ISDIR(kind) and flags & os.O_TMPFILE != os.O_TMPFILE:
            raise OSError(errno.ENOTDIR, "not a folder")
        if flags & os.O_CREAT and stat.S_ISDIR(kind):
            raise OSError(errno.EISDIR, "a folder")
        if flags & os.O_PATH:
            return {"value": 0}, os.dup(place.fd)
        if stat.S_ISLNK(kind):
            raise OSError(errno.ELOOP, "a symbolic link, not to be followed")
        # A pipe without its other end would keep this process waiting; it is opened without waiting.
        pause = os.O_NONBLOCK if stat.S_ISFIFO(kind) else 0
        fd = os.open(f"/proc/self/fd/{place.fd}", flags & ~_CREATES | pause | os.O_CLOEXEC, mode)
        if pause and not flags & os.O_NONBLOCK:
            os.set_blocking(fd, True)
        return {"value": 0}, fd

    def op_mkdir(self, _fds: list[int], *, found: int, mode: int, umask: int) -> dict[str, Any]:
        """Make a folder."""
        place = self._named(found)
        os.umask(umask)
        os.mkdir(place.name, mode, dir_fd=place.fd)
        return {"value": 0}

    def op_unlink(self, _fds: list[int], *, found: int, folder: bool) -> dict[str, Any]:
        """Remove a name."""
        place = self._named(found)
        (os.rmdir if folder else os.unlink)(place.name, dir_fd=place.fd)
        return {"value": 0}

    def op_rename(self, _fds: list[int], *, found: int, to: int, flags: int) -> dict[str, Any]:
        """Rename from one place to another."""
        old, new = self._named(found), self._named(to)
        libc.syscall("renameat2", old.fd, old.name, new.fd, new.name, flags)
        return {"value": 0}

    def _named(self, number: int) -> Any:
        place = self._found[number]
        if place.name is None:
            raise OSError(errno.EINVAL, "not a name in a folder")
        return place

    def op_connect(self, fds: list[int], *, raw: str, found: int) -> dict[str, Any]:
        """Connect the caller's own socket; a Unix socket by what was found."""
        data = bytes.fromhex(raw)
        if found:
            data = struct.pack("=H", socket.AF_UNIX) + f"/proc/self/fd/{self._found[found].fd}".encode() + b"\0"
        return {"value": _on_socket("connect", fds[0], data)}

    def op_bind(self, fds: list[int], *, raw: str, found: int, umask: int) -> dict[str, Any]:
        """Bind it. A Unix socket gets its name in the folder that was found: that name alone is its address then."""
        data = bytes.fromhex(raw)
        if found:
            place = self._named(found)
            os.fchdir(place.fd)
            os.umask(umask)
            data = struct.pack("=H", socket.AF_UNIX) + os.fsencode(place.name) + b"\0"
        try:
            return {"value": _on_socket("bind", fds[0], data)}
        finally:
            os.chdir("/proc")  # which every sandbox has, and Landlock lets it see

    def op_send(self, fds: list[int], *, raw: str, found: int, data: str, flags: int) -> dict[str, Any]:
        """Send one message to an address."""
        where = bytes.fromhex(raw)
        if found:
            where = struct.pack("=H", socket.AF_UNIX) + f"/proc/self/fd/{self._found[found].fd}".encode() + b"\0"
        payload = bytes.fromhex(data)
        # Never SIGPIPE, which would hit this process; never waiting for a full buffer, which would hold it.
        flags |= socket.MSG_NOSIGNAL | socket.MSG_DONTWAIT
        return {"value": libc.syscall("sendto", fds[0], payload, len(payload), flags, where, len(where))}


def _real(fd: int) -> str:
    """Where what is open lies, as this mount namespace and root show it."""
    return os.fsdecode(os.readlink(f"/proc/self/fd/{fd}".encode()))  # noqa: PTH115 - any bytes may be in it


def _on_socket(name: str, fd: int, data: bytes) -> int:
    return libc.syscall(name, fd, data, len(data))


def _lookup(start: int, path: str, flags: int, resolve: int) -> int:
    """O_PATH, and never through a link of /proc that jumps: what this process has open is not the agent's to reach."""
    how = _HOW.pack(os.O_PATH | os.O_CLOEXEC | flags, 0, resolve | _RESOLVE_NO_MAGICLINKS)
    return libc.syscall("openat2", start, os.fsencode(path), ctypes.c_char_p(how), _HOW.size)


def run(sock: socket.socket, pidfd: int, restrictions: dict[str, Any]) -> NoReturn:
    """In a fresh child with one thread and no descriptors but these: join, restrict, serve until the socket ends."""
    status = 0
    try:
        namespaces.enter(pidfd)
        os.setresgid(INSIDE_ID, INSIDE_ID, INSIDE_ID)
        os.setresuid(INSIDE_ID, INSIDE_ID, INSIDE_ID)
        capabilities.drop_bounding()
        os.chdir("/")
        child = os.fork()  # a pid namespace is joined by children only
        if child:
            # It must outlive its child: unreaped, that one would keep the sandbox's first process from ending.
            wire.send(sock, {"born": child})
            sock.close()
            os.waitpid(child, 0)
            os._exit(0)
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        libc.prctl(_PR_SET_NAME, "clawback-hand")
        # The agent's user must not open its /proc entries, and by them it is not taken for a process of the agent's.
        libc.prctl(_PR_SET_DUMPABLE, 0)
        init.apply_restrictions(Restrictions.from_json(restrictions), restrict.Escalating.LEFT_OUT)
        wire.send(sock, {"ready": True})
        _serve(sock)
    except (wire.Closed, ConnectionError):
        status = 0
    except BaseException as error:
        status = 70
        number = error.errno if isinstance(error, OSError) else 0
        wire.send(sock, {"ready": False, "error": f"{type(error).__name__}: {error}"[:500], "errno": number})
    finally:
        os._exit(status)


def _serve(sock: socket.socket) -> None:
    hand = _Hand()
    while True:
        message, fds = wire.receive(sock)
        extra: int | None = None
        try:
            answer, extra = hand.do(message, fds)
        except OSError as error:
            answer = {"errno": error.errno or errno.EIO}
        finally:
            for fd in fds:
                os.close(fd)
        wire.send(sock, answer, [] if extra is None else [extra])
        if extra is not None:
            os.close(extra)


def restrictions_of(folder: str) -> dict[str, Any]:
    """What the agent of this instance folder was put under at its launch. `OSError`, `ValueError`, `TypeError`."""
    loaded = json.loads(Path(folder, "restrictions.json").read_text(encoding="utf-8"))
    if not isinstance(loaded, dict):
        raise TypeError(f"{folder}/restrictions.json: not an object")
    return loaded
