"""Each bundle's manifest in a chain of hashes beside the bundles, so that none can be changed or taken away unseen.

`STATE/evidence/chain.jsonl`: `{"number", "at_ns", "folder", "manifest", "previous"}`, where `manifest` is the SHA-256
of the bundle's manifest and `previous` that of the line before, without its newline. Whoever can write the whole
file can write it anew from any line on: keep the newest line's hash elsewhere (receipts carry their bundle's).
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["Link", "append", "read"]

_FILE = "chain.jsonl"
_MOST_BYTES = 64 << 20


@dataclass(frozen=True, slots=True)
class Link:
    """One line: the bundle's folder below the evidence folder, and its manifest's SHA-256."""

    number: int
    folder: str
    manifest: str


def append(root: Path, folder: Path, manifest: str) -> None:
    """Add a bundle, durably. `OSError` where the file cannot be written."""
    descriptor = os.open(root / _FILE, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "r+b") as file:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        lines = file.read().splitlines()
        entry = {
            "number": len(lines),
            "at_ns": time.time_ns(),
            "folder": str(folder.relative_to(root)),
            "manifest": manifest,
            "previous": hashlib.sha256(lines[-1]).hexdigest() if lines else "",
        }
        file.write(json.dumps(entry).encode() + b"\n")
        file.flush()
        os.fsync(descriptor)


def read(root: Path) -> tuple[tuple[Link, ...], tuple[str, ...]]:
    """(the links, what is wrong with the chain in words). `FileNotFoundError` where there is none."""
    links: list[Link] = []
    wrong: list[str] = []
    previous = ""
    with (root / _FILE).open("rb") as file:
        lines = file.read(_MOST_BYTES).splitlines()
    for number, line in enumerate(lines):
        try:
            entry: dict[str, Any] = json.loads(line)
            if entry["number"] != number or entry["previous"] != previous:
                wrong.append(f"chain.jsonl: line {number + 1} does not follow the one before")
            links.append(Link(number, str(entry["folder"]), str(entry["manifest"])))
        except (ValueError, KeyError, TypeError):
            wrong.append(f"chain.jsonl: line {number + 1} is not a link")
        previous = hashlib.sha256(line).hexdigest()
    return tuple(links), tuple(wrong)
