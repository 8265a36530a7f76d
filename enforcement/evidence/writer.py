"""A folder of evidence: bounded files, each hashed, and at last a manifest that lists them."""

from __future__ import annotations

import hashlib
import json
import os
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

__all__ = ["Limits", "Writer"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What a bundle is at most: `bytes` of all files, processes and descriptors of each looked at, `seconds` of it,
    `tail` bytes of the agent's output and of each telemetry file's matching lines.
    """

    bytes: int = 8 << 20
    processes: int = 512
    descriptors: int = 256
    seconds: float = 5.0
    tail: int = 512 << 10


class Writer:
    """Files are the owner's alone. What does not fit is cut, and named in `truncated`."""

    def __init__(self, folder: Path, limits: Limits) -> None:
        self.folder = folder
        self.limits = limits
        self.truncated: list[str] = []
        self.bytes = 0
        self._files: list[dict[str, Any]] = []
        self._end = time.monotonic() + limits.seconds
        folder.mkdir(parents=True, mode=0o700)

    @property
    def late(self) -> bool:
        """The time is over: what has not been read is left."""
        return time.monotonic() > self._end

    def text(self, name: str, text: str) -> None:
        """Write a file of text, cut at the end where the bundle is full."""
        data = text.encode("utf-8", "backslashreplace")
        room = max(0, self.limits.bytes - self.bytes)
        if len(data) > room:
            self.truncated.append(f"{name}: {room} of {len(data)} bytes")
            data = data[:room]
        _write(self.folder / name, data)
        self.bytes += len(data)
        self._files.append({"path": name, "bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()})

    def json(self, name: str, value: Any) -> None:
        """Write a JSON file; a list that does not fit loses its last items, anything else is cut as text."""
        text = _dump(value)
        room = max(0, self.limits.bytes - self.bytes)
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
