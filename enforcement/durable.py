"""Small files that no crash, full disk or flipped bit can turn into permission: written whole, flushed, checked."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

from clawback.errors import InvalidInput

__all__ = ["read", "remove", "set_aside", "sweep", "write"]

_MOST_BYTES = 8 << 20  # more than any one request of the core's can hold
_HEADING_BYTES = 1024


def write(path: Path, kind: str, body: bytes) -> None:
    """Replace the file by `body` (JSON) with its format and digest; on disk, and named, when this returns.

    `InvalidInput`, and nothing written, for one that `read` would not take.
    """
    if len(body) > _MOST_BYTES - _HEADING_BYTES:
        raise InvalidInput(f"{path.name}: {len(body)} bytes, and at most {_MOST_BYTES - _HEADING_BYTES} are kept")
    new = path.with_name(f".{path.stem}.new")
    head = json.dumps({"format": kind, "sha256": hashlib.sha256(body).hexdigest()}).encode()
    fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        rest = memoryview(head + b"\n" + body + b"\n")
        while rest:
            rest = rest[os.write(fd, rest) :]
        os.fsync(fd)
    finally:
        os.close(fd)
    new.rename(path)
    _flush(path.parent)


def read(path: Path, kind: str = "") -> bytes:
    """The body. `InvalidInput` for another format than `kind` (empty: any), a wrong digest, or what cannot be read."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        with os.fdopen(fd, "rb") as file:
            head, _, body = file.read(_MOST_BYTES).partition(b"\n")
        said = json.loads(head)
        body = body.removesuffix(b"\n")
        if kind in ("", said["format"]) and said["sha256"] == hashlib.sha256(body).hexdigest():
            return body
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InvalidInput(f"{path}: {type(error).__name__}", hint="it is damaged") from None
    raise InvalidInput(
        f"{path}: not {kind or 'a format'}, or its digest does not fit", hint="it is damaged, or of another version"
    )


def remove(path: Path) -> None:
    """Take the file away; gone from the disk when this returns."""
    path.unlink(missing_ok=True)
    _flush(path.parent)


def set_aside(path: Path) -> None:
    """Rename what is damaged to `….damaged`, to be looked at by a person; so named on the disk when this returns."""
    path.rename(path.with_suffix(".damaged"))
    _flush(path.parent)


def sweep(folder: Path) -> None:
    """Take away what a process that died before the rename left: it was never acknowledged."""
    for left in folder.glob(".*.new"):
        left.unlink()


def _flush(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
