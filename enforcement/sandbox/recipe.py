"""What a sandbox is made of, as a list of operations in bytes: written here, followed by a shim in C or in Python.

An operation is a number (16 bits), the length of its fields (32 bits) and the fields: integers of 64 bits; texts and
data as a length (32 bits), the bytes, and a zero byte that is not counted; lists of texts as their count and each.
Everything is in the machine's own order: both sides are on one machine.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum

__all__ = ["CageHead", "Fields", "Op", "cage", "number", "steps", "write"]

_HEAD = struct.Struct("=HI")
_INT = struct.Struct("=q")
_LENGTH = struct.Struct("=I")


class Op(IntEnum):
    """Operations and their fields. `native/shim.h` has the same list; a test compares the two."""

    WAIT = 1  # for a word from the shim: the id maps are written
    JOIN = 2  # a v1 group: index of its open `tasks` file
    UNSHARE = 3  # flags
    IDS = 4  # uid, gid
    BOUNDING = 5  # securebits, set once the bounding set is empty
    HOSTNAME = 6  # name
    MOUNT = 7  # source, target, type, flags, data; an empty text is a null pointer
    LOOPBACK = 8
    LISTEN = 9  # port, backlog
    MKDIR = 10  # path, mode
    MKDIRS = 11  # path: with all above it, as far as they are not there
    TOUCH = 12  # path: an empty file, if nothing is there
    SYMLINK = 13  # what it leads to, path
    FILE = 14  # path, mode, data: a new one
    ATTACH = 16  # index of a detached mount, path
    BIND = 17  # source, target, mount attributes, whether to do it only if the source is a folder
    MASK = 18  # path, path of the null device, data and flags of an empty file system; if it is there
    PIVOT = 20  # path
    LANDLOCK = 21  # handled: files, network, scopes; size of the three
    LANDLOCK_PATH = 22  # path, rights on a folder, rights on a file; if it is there
    LANDLOCK_PORT = 23  # rights, port
    CANARY = 24  # root, path, Landlock rights on its folder and on itself
    CHDIR = 25  # path
    RLIMIT = 26  # which, soft, hard; as far as the ceiling lets it
    PRCTL = 27  # five words
    DROP_CAPABILITIES = 28
    LANDLOCK_ENFORCE = 29  # flags
    PROBE = 30  # open / and connect to port 1: what do they fail with?
    SECCOMP = 31  # flags, program
    NOTIFY = 32  # the same, with a listener for the shim
    READY = 33  # the gateway's socket goes to the shim; the last of a cage's
    EXEC = 34  # search path, arguments, environment; the last of a job's


Field = int | str | bytes | Sequence[str]


def _text(data: bytes) -> bytes:
    return _LENGTH.pack(len(data)) + data + b"\0"


def _field(value: Field) -> bytes:
    if isinstance(value, int):
        # As the kernel's words are: a flag in the uppermost bit is a negative number here.
        return _INT.pack(value - (1 << 64) if value >= 1 << 63 else value)
    if isinstance(value, bytes):
        return _text(value)
    if isinstance(value, str):
        return _text(value.encode("utf-8", "surrogateescape"))
    return _INT.pack(len(value)) + b"".join(_field(word) for word in value)


def number(value: int) -> bytes:
    """An integer by itself."""
    return _field(value)


def write(op: Op, *fields: Field) -> bytes:
    """One operation."""
    body = b"".join(map(_field, fields))
    return _HEAD.pack(op, len(body)) + body


class Fields:
    """Reads fields in order. `ValueError` where there is none such."""

    def __init__(self, data: bytes, at: int = 0, end: int | None = None) -> None:
        self._data = data
        self._at = at
        self._end = len(data) if end is None else end

    def _take(self, count: int) -> bytes:
        if count < 0 or self._end - self._at < count:
            raise ValueError("a recipe that ends within a field")
        self._at += count
        return self._data[self._at - count : self._at]

    def number(self) -> int:
        """An integer."""
        (value,) = _INT.unpack(self._take(_INT.size))
        return int(value)

    def word(self) -> int:
        """An integer as an unsigned word."""
        return self.number() & 0xFFFF_FFFF_FFFF_FFFF

    def data(self) -> bytes:
        """Bytes."""
        (length,) = _LENGTH.unpack(self._take(_LENGTH.size))
        found = self._take(length + 1)
        if found[-1]:
            raise ValueError("a text without an end")
        return found[:-1]

    def text(self) -> str:
        """A text without zero bytes."""
        found = self.data()
        if b"\0" in found:
            raise ValueError("a zero byte within a text")
        return found.decode("utf-8", "surrogateescape")

    def texts(self) -> list[str]:
        """A list of texts."""
        return [self.text() for _ in range(self.number())]

    def rest(self) -> bytes:
        """All that is left."""
        return self._take(self._end - self._at)

    def done(self) -> None:
        """`ValueError` unless all has been read."""
        if self._at != self._end:
            raise ValueError("an operation with more than it needs")


def steps(data: bytes) -> Iterator[tuple[Op, Fields]]:
    """The operations of a recipe. `ValueError` where it is none."""
    at = 0
    while at < len(data):
        if len(data) - at < _HEAD.size:
            raise ValueError("a recipe that ends within an operation")
        number, length = _HEAD.unpack_from(data, at)
        at += _HEAD.size
        if len(data) - at < length:
            raise ValueError("a recipe that ends within an operation")
        yield Op(number), Fields(data, at, at + length)
        at += length


@dataclass(frozen=True, slots=True, kw_only=True)
class CageHead:
    """What a shim needs for making a sandbox before its command is known; operations for the first process follow.

    flags           CLONE_NEW* of the first process
    group           its v2 leaf, an open folder; -1 without
    uid_map, gid_map   one line each
    about           JSON that the shim says with its `ready`, unread
    leaves          folders to remove at the end
    fds             descriptors that the operations name by index
    """

    flags: int
    group: int
    uid_map: str
    gid_map: str
    about: str
    leaves: tuple[str, ...]
    fds: tuple[int, ...]

    @classmethod
    def read(cls, data: bytes) -> tuple[CageHead, bytes]:
        """(the head, the operations). `ValueError` where it is none."""
        fields = Fields(data)
        head = cls(
            flags=fields.word(),
            group=fields.number(),
            uid_map=fields.text(),
            gid_map=fields.text(),
            about=fields.text(),
            leaves=tuple(fields.texts()),
            fds=tuple(fields.number() for _ in range(fields.number())),
        )
        return head, fields.rest()


def cage(head: CageHead, operations: bytes) -> bytes:
    """Head and operations as one."""
    parts: list[Field] = [head.flags, head.group, head.uid_map, head.gid_map, head.about, head.leaves, len(head.fds)]
    return b"".join(map(_field, [*parts, *head.fds])) + operations
