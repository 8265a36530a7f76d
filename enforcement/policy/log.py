"""The append-only record of one policy: a line for each version, mark and publication, each durable before it counts.

    {"kind": "version", "version": 3, "text": …, "sha256": …, "author": …, "reason": …, "incident": …, "created_ns": …,
     "diff": …, "known_good": false, "previous": SHA-256 of the line before}
    {"kind": "known_good", "version": 2, "author": …, "created_ns": …, "previous": …}
    {"kind": "published", "version": 3, "previous": …}       `current.yaml` holds version 3's text

A crash can leave half a last line. It never counted, as `fsync` had not returned, and the next writer cuts it off.
`previous` chains the lines, so that a changed or missing one shows.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from clawback.errors import ClawbackError
from clawback.model import PolicyVersion

__all__ = ["Log", "fsync_folder", "read_log"]


@dataclass(slots=True)
class Log:
    """What the lines come to. `published` is the last version that is known to have reached `current.yaml`."""

    versions: dict[int, PolicyVersion] = field(default_factory=dict)
    texts: dict[int, str] = field(default_factory=dict)
    published: int = 0
    size: int = 0  # bytes of whole lines
    head: str = ""  # SHA-256 of the last line

    @property
    def last(self) -> PolicyVersion | None:
        """The newest version."""
        return self.versions[len(self.versions)] if self.versions else None

    def line(self, record: dict[str, Any]) -> bytes:
        """The record as the next line."""
        return json.dumps({**record, "previous": self.head}, separators=(",", ":")).encode() + b"\n"

    def take(self, line: bytes, where: str) -> None:
        """Read one whole line; `ClawbackError` where it does not follow from those before."""
        try:
            record = json.loads(line)
            if record["previous"] != self.head:
                raise ValueError("the chain is broken")
            self._apply(record)
        except (ValueError, KeyError, TypeError) as error:
            raise ClawbackError(
                f"{where}: at byte {self.size}: {error}: the policy's record was changed by hand",
                hint="restore the file from a backup; the last active version stays in force until then",
            ) from None
        self.size += len(line)
        self.head = hashlib.sha256(line).hexdigest()

    def _apply(self, record: dict[str, Any]) -> None:
        number, kind = record["version"], record["kind"]
        if kind == "version":
            if number != len(self.versions) + 1:
                raise ValueError(f"version {number} out of order")
            text = str(record["text"])
            if hashlib.sha256(text.encode()).hexdigest() != record["sha256"]:
                raise ValueError(f"version {number} does not match its hash")
            keys = ("policy", "version", "sha256", "author", "reason", "incident", "created_ns", "known_good", "diff")
            self.versions[number] = PolicyVersion(**{key: record[key] for key in keys})
            self.texts[number] = text
        elif kind == "known_good":
            known = self.versions[number]
            fields = {key: getattr(known, key) for key in known.__dataclass_fields__}
            self.versions[number] = PolicyVersion(**{**fields, "known_good": True})
        elif kind == "published":
            self.published = self.versions[number].version
        else:
            raise ValueError(f"unknown kind {kind!r}")


def read_log(path: Path) -> Log:
    """All whole lines; an empty log where there is no file."""
    log = Log()
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return log
    for line in data.splitlines(keepends=True):
        if line.endswith(b"\n"):
            log.take(line, str(path))
    return log


def append(path: Path, log: Log, record: dict[str, Any]) -> None:
    """Add one record, durably: when this returns it survives a crash. The caller holds the lock."""
    line = log.line(record)
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
    try:
        os.ftruncate(fd, log.size)  # half a line that a crash left
        os.lseek(fd, 0, os.SEEK_END)
        rest = memoryview(line)
        while rest:
            rest = rest[os.write(fd, rest) :]
        os.fsync(fd)
    finally:
        os.close(fd)
    if log.size == 0:
        fsync_folder(path.parent)  # the file's name must survive too
    log.take(line, str(path))


def fsync_folder(folder: Path) -> None:
    """Make the folder's entries durable."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
