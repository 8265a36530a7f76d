"""How each emulated call is taken apart: what is looked up inside, what is decided on, and what is done if allowed."""

from __future__ import annotations

import errno
import os
import struct
from collections.abc import Callable, Generator
from typing import Any

from clawback.enforcement.kernel.notify import Memory
from clawback.enforcement.supervise.subject import Reply, Subject
from clawback.enforcement.supervise.target import (
    AT_FDCWD,
    Address,
    descriptor,
    place,
    read_address,
    read_path,
    signed,
)

__all__ = ["TAKEN_APART"]

Look = Generator[tuple[dict[str, Any], list[int]], Reply, Subject]

_MOST_DATA = 65_536
_AT_REMOVEDIR = 0x200
_RENAME_FLAGS = 0x7
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_RESOLVE_KNOWN = 0x3F
_HOW = struct.Struct("=QQQ")


def _ask(message: dict[str, Any], fds: list[int]) -> Generator[tuple[dict[str, Any], list[int]], Reply, dict[str, Any]]:
    answer, extra = yield message, fds
    for fd in extra:
        os.close(fd)
    if "errno" in answer:
        raise OSError(answer["errno"], os.strerror(answer["errno"]))
    return answer


def _look(
    subject: Subject,
    dirfd: int,
    path: bytes,
    *,
    follow: bool = True,
    parent: bool = False,
    create: bool = False,
    resolve: int = 0,
) -> Generator[tuple[dict[str, Any], list[int]], Reply, dict[str, Any]]:
    """Have the path found inside, relative to where the thread stands."""
    if not path:
        raise OSError(errno.ENOENT, "an empty path")
    subject.look_out()
    # RESOLVE_BENEATH and RESOLVE_IN_ROOT make even an absolute path begin at the descriptor.
    anchored = bool(resolve & 0x18)
    fds = [] if path.startswith(b"/") and not anchored else [place(subject.thread.tid, dirfd)]
    answer = yield from _ask(
        {
            "op": "look",
            "path": os.fsdecode(path),
            "follow": follow,
            "parent": parent,
            "create": create,
            "resolve": resolve,
            "own": [subject.thread.inside_pid, subject.thread.inside_tid],
        },
        fds,
    )
    subject.found.append(answer["found"])
    subject.paths = (*subject.paths, answer["path"])
    return answer


def _open(subject: Subject, dirfd: int, path: bytes, flags: int, mode: int, resolve: int = 0) -> Look:
    whole = flags & os.O_TMPFILE == os.O_TMPFILE
    subject.writes = bool(flags & _WRITES) or whole
    subject.close_on_exec = bool(flags & os.O_CLOEXEC)
    create = bool(flags & os.O_CREAT)
    follow = not (flags & os.O_NOFOLLOW or (create and flags & os.O_EXCL))
    yield from _look(subject, dirfd, path, follow=follow, create=create, resolve=resolve)
    subject.shown |= {"path": subject.paths[0], "flags": _flags(flags), "mode": oct(mode)}
    subject.act = {
        "op": "open",
        "found": subject.found[0],
        "flags": flags,
        "mode": mode & 0o7777,
        "umask": subject.thread.umask,
    }
    return subject


def _flags(flags: int) -> str:
    words = [("O_RDONLY", "O_WRONLY", "O_RDWR", "O_RDWR")[flags & 3]]
    words += [
        word
        for word in ("O_CREAT", "O_EXCL", "O_TRUNC", "O_APPEND", "O_DIRECTORY", "O_PATH", "O_NOFOLLOW")
        if flags & getattr(os, word)
    ]
    return "|".join(words)


def _plain_open(subject: Subject) -> Look:
    held = subject.held
    path = _text(subject, 0)
    return (yield from _open(subject, AT_FDCWD, path, signed(held.arguments[1]), signed(held.arguments[2])))


def _openat(subject: Subject) -> Look:
    held = subject.held
    path = _text(subject, 1)
    dirfd, flags, mode = (signed(held.arguments[index]) for index in (0, 2, 3))
    return (yield from _open(subject, dirfd, path, flags, mode))


def _creat(subject: Subject) -> Look:
    flags = os.O_CREAT | os.O_WRONLY | os.O_TRUNC
    path = _text(subject, 0)
    return (yield from _open(subject, AT_FDCWD, path, flags, signed(subject.held.arguments[1])))


def _openat2(subject: Subject) -> Look:
    held = subject.held
    if held.arguments[3] != _HOW.size:
        raise OSError(errno.E2BIG, "a struct open_how of a size that is not known")
    path = _text(subject, 1)
    with Memory(held.tid) as memory:
        subject.copied.append(memory.read(held.arguments[2], _HOW.size))
    flags, mode, resolve = _HOW.unpack(subject.copied[-1])
    if resolve & ~_RESOLVE_KNOWN or flags >> 31 or mode & ~0o7777:
        raise OSError(errno.EINVAL, "flags that are not known")
    return (yield from _open(subject, signed(held.arguments[0]), path, flags, mode, resolve))


def _mkdir(subject: Subject, dirfd: int, path: bytes, mode: int) -> Look:
    subject.writes = True
    yield from _look(subject, dirfd, path, parent=True)
    subject.shown |= {"path": subject.paths[0], "mode": oct(mode & 0o7777)}
    subject.act = {"op": "mkdir", "found": subject.found[0], "mode": mode & 0o7777, "umask": subject.thread.umask}
    return subject


def _remove(subject: Subject, dirfd: int, path: bytes, *, folder: bool) -> Look:
    subject.writes = True
    yield from _look(subject, dirfd, path, parent=True)
    subject.shown |= {"path": subject.paths[0]}
    subject.act = {"op": "unlink", "found": subject.found[0], "folder": folder}
    return subject


def _rename(subject: Subject, old: tuple[int, bytes], new: tuple[int, bytes], flags: int = 0) -> Look:
    if flags & ~_RENAME_FLAGS:
        raise OSError(errno.EINVAL, "flags that are not known")
    subject.writes = True
    yield from _look(subject, *old, parent=True)
    yield from _look(subject, *new, parent=True)
    subject.shown |= {"path": subject.paths[0], "to": subject.paths[1]}
    subject.act = {"op": "rename", "found": subject.found[0], "to": subject.found[1], "flags": flags}
    return subject


def _unlinkat(subject: Subject) -> Look:
    dirfd, flags = signed(subject.held.arguments[0]), signed(subject.held.arguments[2])
    if flags & ~_AT_REMOVEDIR:
        raise OSError(errno.EINVAL, "flags that are not known")
    return (yield from _remove(subject, dirfd, _text(subject, 1), folder=bool(flags)))


def _renameat(subject: Subject) -> Look:
    held = subject.held
    old = (signed(held.arguments[0]), _text(subject, 1))
    new = (signed(held.arguments[2]), _text(subject, 3))
    flags = held.arguments[4] & 0xFFFF_FFFF if subject.name == "renameat2" else 0
    return (yield from _rename(subject, old, new, flags))


def _socket(subject: Subject, register: int, length: int) -> None:
    """Copy the address, then the socket itself: from here on neither can be exchanged."""
    subject.address = read_address(subject.held, register, length)
    subject.copied.append(subject.address.raw)
    subject.look_out()
    subject.descriptors.append(descriptor(subject.thread.tid, subject.thread.pid, signed(subject.held.arguments[0])))
    subject.shown |= {"address": subject.address.text}


def _connect(subject: Subject) -> Look:
    _socket(subject, 1, subject.held.arguments[2])
    found = yield from _unix_place(subject, parent=False)
    subject.act = {"op": "connect", "raw": _raw(subject), "found": found}
    return subject


def _bind(subject: Subject) -> Look:
    _socket(subject, 1, subject.held.arguments[2])
    found = yield from _unix_place(subject, parent=True)
    subject.act = {"op": "bind", "raw": _raw(subject), "found": found, "umask": subject.thread.umask}
    return subject


def _sendto(subject: Subject) -> Look:
    held = subject.held
    if not held.arguments[4]:
        # No address: the kernel looks at the register alone, so nobody can put one there afterwards.
        subject.free = True
        return subject
    if held.arguments[2] > _MOST_DATA:
        raise OSError(errno.EMSGSIZE, f"more than {_MOST_DATA} bytes")
    with Memory(held.tid) as memory:
        data = memory.read(held.arguments[1], held.arguments[2])
    subject.copied.append(data)
    _socket(subject, 4, held.arguments[5])
    found = yield from _unix_place(subject, parent=False)
    subject.shown |= {"bytes": len(data)}
    subject.act = {
        "op": "send",
        "raw": _raw(subject),
        "found": found,
        "data": data.hex(),
        "flags": signed(held.arguments[3]),
    }
    return subject


def _unix_place(subject: Subject, *, parent: bool) -> Generator[tuple[dict[str, Any], list[int]], Reply, int]:
    address = subject.address
    if address is None or address.path is None:
        return 0
    yield from _look(subject, AT_FDCWD, address.path, parent=parent)
    # What rules see is where the path leads, not what the agent called it.
    subject.address = Address(address.raw, f"unix:{subject.paths[0]}", path=os.fsencode(subject.paths[0]))
    subject.shown |= {"address": subject.address.text}
    subject.paths = ()
    return subject.found[0]


def _raw(subject: Subject) -> str:
    return subject.address.raw.hex() if subject.address else ""


def _text(subject: Subject, register: int) -> bytes:
    subject.copied.append(read_path(subject.held, register))
    return subject.copied[-1]


def _path(subject: Subject, register: int) -> tuple[int, bytes]:
    return AT_FDCWD, _text(subject, register)


TAKEN_APART: dict[str, Callable[[Subject], Look]] = {
    "open": _plain_open,
    "openat": _openat,
    "openat2": _openat2,
    "creat": _creat,
    "mkdir": lambda s: _mkdir(s, *_path(s, 0), signed(s.held.arguments[1])),
    "mkdirat": lambda s: _mkdir(s, signed(s.held.arguments[0]), _text(s, 1), signed(s.held.arguments[2])),
    "rmdir": lambda s: _remove(s, *_path(s, 0), folder=True),
    "unlink": lambda s: _remove(s, *_path(s, 0), folder=False),
    "unlinkat": _unlinkat,
    "rename": lambda s: _rename(s, _path(s, 0), _path(s, 1)),
    "renameat": _renameat,
    "renameat2": _renameat,
    "connect": _connect,
    "bind": _bind,
    "sendto": _sendto,
}
"""Of each emulated call, how it is taken apart. `OSError` is what the call fails with, undecided."""
