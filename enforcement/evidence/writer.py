"""A folder of evidence: bounded files, each hashed, and at last a manifest that lists them."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

__all__ = ["Limits", "Stream", "Writer"]

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What a bundle is at most: `bytes` of all files, processes and descriptors of each looked at, `seconds` of it,
    `tail` bytes of the agent's output and of each telemetry file's matching lines; `memory` bytes of its memory, beside
    `bytes`, where that is asked for.
    """

    bytes: int = 8 << 20
    processes: int = 512
    descriptors: int = 256
    seconds: float = 5.0
    tail: int = 512 << 10
    memory: int = 64 << 20


class Writer:
    """Files are the owner's alone. What does not fit is cut, and named in `truncated`; so is what a full disk refuses,
    as long as the manifest can be written, without which there is no bundle.
    """

    def __init__(self, folder: Path, limits: Limits) -> None:
        self.folder = folder
        self.limits = limits
        self.truncated: list[str] = []
        self.bytes = 0
        self._files: list[dict[str, Any]] = []
        self._streamed = 0
        self._end = time.monotonic() + limits.seconds
        folder.mkdir(parents=True, mode=0o700)

    @property
    def late(self) -> bool:
        """The time is over: what has not been read is left."""
        return time.monotonic() > self._end

    def text(self, name: str, text: str) -> None:
        """Write a file of text, cut at the end where the bundle is full."""
        data = text.encode("utf-8", "backslashreplace")
        room = max(0, self.limits.bytes - (self.bytes - self._streamed))
        if len(data) > room:
            self.truncated.append(f"{name}: {room} of {len(data)} bytes")
            data = data[:room]
        if not self._written(name, data):
            return
        self.bytes += len(data)
        self._files.append({"path": name, "bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()})

    def json(self, name: str, value: Any) -> None:
        """Write a JSON file; a list that does not fit loses its last items, anything else is cut as text."""
        text = _dump(value)
        room = max(0, self.limits.bytes - (self.bytes - self._streamed))
        if len(text) > room and isinstance(value, list):
            kept, size = [], 4
            for item in value:
                size += len(_dump(item)) + 2
                if size > room:
                    break
                kept.append(item)
            self.truncated.append(f"{name}: {len(kept)} of {len(value)} entries")
            text = _dump(kept)
        self.text(name, text)

    @contextmanager
    def stream(self, name: str) -> Iterator[Stream]:
        """A file of raw bytes, written piece by piece, within `limits.memory` of all such files together. It is marked
        sensitive in the manifest: nothing takes it along by itself.
        """
        stream = Stream(self.folder / name, self.limits.memory - self._streamed)
        try:
            yield stream
        finally:
            stream.close()
            self._streamed += stream.bytes
            self.bytes += stream.bytes
            self._files.append({"path": name, "bytes": stream.bytes, "sha256": stream.sha256, "sensitive": True})
            if stream.failed:
                self.truncated.append(f"{name}: {stream.bytes} bytes: {stream.failed}")

    def _written(self, name: str, data: bytes) -> bool:
        try:
            _write(self.folder / name, data)
        except OSError as error:
            if error.errno not in _FULL:
                raise
            (self.folder / name).unlink(missing_ok=True)
            self.truncated.append(f"{name}: not kept: {error.strerror}")
            return False
        return True

    def finish(self, facts: dict[str, Any]) -> tuple[Path, str, int]:
        """Write the manifest, durably, after everything it lists; its path, its SHA-256 and the number of files."""
        manifest = self.folder / "manifest.json"
        content = {
            **facts,
            "limits": asdict(self.limits),
            "truncated": self.truncated,
            "files": self._files,
        }
        data = json.dumps(content, indent=1).encode()
        _write(manifest, data)
        for folder in (self.folder, self.folder.parent):
            _sync(folder)
        return manifest, hashlib.sha256(data).hexdigest(), len(self._files)


class Stream:
    """What `Writer.stream` gives: `write` until `full`; a disk that is full fills it too."""

    def __init__(self, path: Path, room: int) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        self._room = room
        self._digest = hashlib.sha256()
        self.bytes = 0
        self.failed = ""

    @property
    def full(self) -> bool:
        """Nothing more fits."""
        return bool(self.failed) or self.bytes >= self._room

    @property
    def sha256(self) -> str:
        """Of what was written."""
        return self._digest.hexdigest()

    def write(self, data: bytes) -> None:
        """As much of it as fits."""
        rest = memoryview(data)[: self._room - self.bytes]
        try:
            while rest and not self.failed:
                done = os.write(self._file, rest)
                self._digest.update(rest[:done])
                self.bytes += done
                rest = rest[done:]
        except OSError as error:
            if error.errno not in _FULL:
                raise
            self.failed = error.strerror or "no room"

    def close(self) -> None:
        """On disk when this returns."""
        try:
            os.fsync(self._file)
        except OSError as error:
            if error.errno not in _FULL:
                raise
            self.failed = error.strerror or "no room"
        finally:
            os.close(self._file)


def _dump(value: Any) -> str:
    if isinstance(value, list):
        return "[\n" + ",\n".join(json.dumps(item) for item in value) + "\n]"
    return json.dumps(value, indent=1)


def _write(path: Path, data: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(descriptor, rest) :]
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
