"""Copies an agent's transcripts from inside its sandbox, where everything may be a trap.

Each part of a path is opened by itself and no link is followed; only plain files are read, without waiting for any; how
many, how large and how long is bounded. Of each there are two copies: as it was, with the values of known secrets
blotted out, and as it may be shown. The digest in the index is of what the agent has, before anything was taken out.
"""

from __future__ import annotations

import fnmatch
import hashlib
import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from clawback.enforcement.evidence.clean import Cleaner
from clawback.enforcement.evidence.writer import Writer
from clawback.enforcement.quarantine import tree
from clawback.enforcement.sandbox.record import Sandbox
from clawback.errors import InvalidInput

__all__ = ["MOST_PATTERNS", "check", "copy"]

MOST_PATTERNS = 16
_MOST_FILES = 32
_MOST_LOOKED_AT = 4096
"""Names in all folders together: a folder of a million is not walked through."""
_LARGEST = 4 << 20
_SHOWN = 256 << 10
_PIECE = 1 << 16
_FOLDER = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_WILD = frozenset("*?[")


@dataclass(frozen=True, slots=True)
class _Found:
    path: str
    descriptor: int
    status: os.stat_result


def check(patterns: Sequence[str]) -> tuple[str, ...]:
    """The patterns, each once. `InvalidInput` for one that is not an absolute path inside, or too many."""
    if len(patterns) > MOST_PATTERNS:
        raise InvalidInput(f"transcripts: {len(patterns)} patterns, at most {MOST_PATTERNS}", hint="join some by `*`")
    for pattern in patterns:
        parts = pattern.split("/")
        if not pattern.startswith("/") or ".." in parts or "**" in pattern or len(pattern) > 1024:
            raise InvalidInput(
                f"transcripts: {pattern[:80]!a} is no pattern", hint="absolute, `*` within one part: /sandbox/*/x.jsonl"
            )
    return tuple(dict.fromkeys(patterns))


def copy(box: Sandbox, patterns: Sequence[str], writer: Writer, cleaner: Cleaner) -> None:
    """Copy what matches, the newest first; what is left out is named in the writer's `truncated`.

    `FileNotFoundError` or `ProcessLookupError` where the sandbox has ended: its files went with it.
    """
    index: list[dict[str, Any]] = []
    with tree.process_folder(box) as folder:
        root = os.open("root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=folder)
    found: list[_Found] = []
    try:
        looked = _Looked(writer)
        for pattern in patterns:
            for one in _matching(root, [part for part in pattern.split("/") if part], "", looked):
                found.append(one)
                if len(found) > 4 * _MOST_FILES:
                    looked.say("transcripts: more files than are looked at")
                    break
        found.sort(key=lambda one: -one.status.st_mtime_ns)
        for number, one in enumerate(found, start=1):
            if number > _MOST_FILES or writer.late:
                writer.truncated.append(f"transcripts: {number - 1} of {len(found)} files")
                break
            index.append(_kept(one, number, writer, cleaner))
    finally:
        for one in found:
            os.close(one.descriptor)
        os.close(root)
    writer.json("transcripts.json", index)


class _Looked:
    """How much was looked at, and whether it was said that this was not all."""

    def __init__(self, writer: Writer) -> None:
        self._writer = writer
        self._names = 0

    def one(self) -> bool:
        """Whether one more name may be looked at."""
        self._names += 1
        if self._names <= _MOST_LOOKED_AT and not self._writer.late:
            return True
        self.say("transcripts: folders with too many names")
        return False

    def say(self, what: str) -> None:
        """Once."""
        if what not in self._writer.truncated:
            self._writer.truncated.append(what)


def _matching(folder: int, parts: list[str], above: str, looked: _Looked) -> Iterator[_Found]:
    """Files that the parts lead to; each descriptor is the caller's to close."""
    part, rest = parts[0], parts[1:]
    for name in _names(folder, part, looked):
        path = f"{above}/{name}"
        try:
            if rest:
                below = os.open(name, _FOLDER, dir_fd=folder)
                try:
                    yield from _matching(below, rest, path, looked)
                finally:
                    os.close(below)
                continue
            # What it is comes before opening it: merely opening a device or a pipe may do something.
            before = os.stat(name, dir_fd=folder, follow_symlinks=False)
            if not stat.S_ISREG(before.st_mode):
                continue
            descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
        except OSError:
            continue  # a link, a file where a folder should be, or gone meanwhile
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            os.close(descriptor)
            continue
        yield _Found(path, descriptor, status)


def _names(folder: int, part: str, looked: _Looked) -> Iterator[str]:
    if not _WILD & set(part):
        if looked.one():
            yield part
        return
    try:
        listing = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=folder)
    except OSError:
        return
    with os.scandir(listing) as entries:
        for entry in entries:
            if not looked.one():
                break
            if fnmatch.fnmatchcase(entry.name, part):
                yield entry.name
    os.close(listing)


def _kept(one: _Found, number: int, writer: Writer, cleaner: Cleaner) -> dict[str, Any]:
    name = f"transcript-{number:02}"
    digest, size, end = hashlib.sha256(), 0, b""
    carry = b""  # of the piece before, so that a value that lies across two is found
    with writer.stream(f"{name}.raw") as stream:
        while size < _LARGEST and not writer.late and not stream.full:
            piece = os.read(one.descriptor, _PIECE)
            if not piece:
                break
            size += len(piece)
            digest.update(piece)
            masked = cleaner.mask(carry + piece)
            keep = min(len(masked), max(0, cleaner.longest - 1))
            stream.write(masked[: len(masked) - keep])
            carry = masked[len(masked) - keep :]
            end = (end + piece)[-2 * _SHOWN :]
        stream.write(carry)
    whole = size == one.status.st_size
    path = cleaner.text(one.path.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace"))
    if not whole:
        writer.truncated.append(f"{path[:200]}: {size} of {one.status.st_size} bytes")
    # More than is shown is cleaned, so that nothing secret is halved where what is shown begins.
    shown = cleaner.text(end.decode("utf-8", "backslashreplace"))[-_SHOWN:]
    if size > _SHOWN:
        shown = shown.partition("\n")[2]
    writer.text(f"{name}.jsonl", shown)
    return {
        "path": path,
        "raw": f"{name}.raw",
        "shown": f"{name}.jsonl",
        "bytes": size,
        "sha256": digest.hexdigest(),
        "whole": whole,
        "modified_ns": one.status.st_mtime_ns,
    }
