"""Small files that other processes read: written whole or not at all."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

__all__ = ["descriptors", "read_text", "start_ticks", "write_atomically"]


def write_atomically(path: Path, text: str, *, mode: int = 0o600) -> None:
    """Replace a file; a reader sees the old text or the new one."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    fd = os.open(temporary, os.O_CREAT | os.O_WRONLY | os.O_TRUNC | os.O_CLOEXEC, mode)
    try:
        data = text.encode()
        while data:
            data = data[os.write(fd, data) :]
    finally:
        os.close(fd)
    temporary.replace(path)


def read_text(path: str, *, limit: int = 1 << 20) -> str:
    """A /proc or cgroup file, in as few system calls as it takes: a launch reads a dozen of them."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        parts = []
        while limit > 0 and (part := os.read(fd, min(limit, 65536))):
            parts.append(part)
            limit -= len(part)
    finally:
        os.close(fd)
    return b"".join(parts).decode("utf-8", "replace")


def start_ticks(pid: int) -> int:
    """When a process started, field 22 of /proc/PID/stat; with the pid it names one process. `OSError` when gone."""
    text = read_text(f"/proc/{pid}/stat")
    return int(text.rpartition(")")[2].split()[19])


def descriptors() -> dict[str, str]:
    """Open descriptors of this process and what they are."""
    found = {}
    for number in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):  # the listing's own
            found[number] = str(Path(f"/proc/self/fd/{number}").readlink())
    return found
