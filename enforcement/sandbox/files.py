"""Small files that other processes read: written whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["start_ticks", "write_atomically"]


def write_atomically(path: Path, text: str, *, mode: int = 0o600) -> None:
    """Replace a file; a reader sees the old text or the new one."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    fd = os.open(temporary, os.O_CREAT | os.O_WRONLY | os.O_TRUNC | os.O_CLOEXEC, mode)
    with os.fdopen(fd, "w", encoding="utf-8") as file:
        file.write(text)
    temporary.replace(path)


def start_ticks(pid: int) -> int:
    """When a process started, field 22 of /proc/PID/stat; with the pid it names one process. `OSError` when it is gone."""
    text = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    return int(text.rpartition(")")[2].split()[19])
