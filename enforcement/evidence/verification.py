"""Hash a bundle again: every file as its manifest says, none more, none less, and the manifest as the chain says."""

from __future__ import annotations

import hashlib
import json
import os
import stat
from dataclasses import dataclass
from pathlib import Path

from clawback.enforcement.evidence import chain

__all__ = ["Verified", "verify"]

_MANIFEST = "manifest.json"
_MOST_MANIFEST = 16 << 20


@dataclass(frozen=True, slots=True)
class Verified:
    """`sha256` is the manifest's own, as read now; `wrong` says what differs, in words, and is empty where nothing
    does; `chained` whether the chain of the evidence folder knows this manifest.
    """

    folder: str
    sha256: str
    files: int
    bytes: int
    chained: bool
    wrong: tuple[str, ...]


def verify(folder: Path, *, expected: str = "") -> Verified:
    """Look, and change nothing. `expected` is the manifest's SHA-256 from a receipt or ticket, where one is at hand."""
    wrong: list[str] = []
    try:
        raw = _regular(folder / _MANIFEST, _MOST_MANIFEST)
        listed = {str(entry["path"]): (int(entry["bytes"]), str(entry["sha256"])) for entry in json.loads(raw)["files"]}
    except OSError as error:
        return Verified(str(folder), "", 0, 0, False, (f"{_MANIFEST}: {error.strerror}",))
    except (ValueError, KeyError, TypeError):
        return Verified(str(folder), "", 0, 0, False, (f"{_MANIFEST}: not one that this version can read",))
    digest = hashlib.sha256(raw).hexdigest()
    if expected and digest != expected:
        wrong.append(f"{_MANIFEST}: its SHA-256 is {digest}, not {expected[:64]!a}")
    there = {path.name for path in folder.iterdir()} - {_MANIFEST}
    wrong += [f"{name[:120]!a}: not in the manifest" for name in sorted(there - listed.keys())]
    size = 0
    for name, (length, sha256) in listed.items():
        if "/" in name or name in {"", ".", ".."}:
            wrong.append(f"{name[:120]!a}: leads elsewhere")
            continue
        try:
            found = _hash(folder / name)
        except OSError as error:
            wrong.append(f"{name[:120]!a}: {error.strerror}")
            continue
        size += found[0]
        if found != (length, sha256):
            wrong.append(f"{name[:120]!a}: has changed")
    chained, broken = _chained(folder, digest)
    return Verified(str(folder), digest, len(listed), size, chained, (*wrong, *broken))


def _chained(folder: Path, digest: str) -> tuple[bool, tuple[str, ...]]:
    """The chain lies beside the bundle, or one folder further up where the bundle is an incident's."""
    folder = folder.resolve()
    for root in (folder.parent, folder.parent.parent):
        try:
            links, wrong = chain.read(root)
        except FileNotFoundError:
            continue
        name = str(folder.relative_to(root))
        mine = [link for link in links if link.folder == name]
        if not mine:
            return False, (*wrong, "chain.jsonl does not know this bundle")
        if mine[-1].manifest != digest:
            return False, (*wrong, "chain.jsonl has another SHA-256 for this bundle's manifest")
        return True, wrong
    return False, ()


def _open(path: Path) -> int:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(22, "not a file", str(path))
    return descriptor


def _regular(path: Path, most: int) -> bytes:
    with os.fdopen(_open(path), "rb") as file:
        data = file.read(most + 1)
    if len(data) > most:
        raise OSError(27, "too large", str(path))
    return data


def _hash(path: Path) -> tuple[int, str]:
    digest = hashlib.sha256()
    size = 0
    with os.fdopen(_open(path), "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
            size += len(block)
    return size, digest.hexdigest()
