"""Find what a command's interpreter needs to see outside the base system: a virtual environment, a pyenv."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

__all__ = ["BASE", "needed", "too_wide", "within"]

BASE = ("/usr", "/lib", "/lib32", "/lib64", "/libx32", "/bin", "/sbin")
"""Host folders that every sandbox shows read-only."""

_NEVER = ("/", "/home", "/root", "/proc", "/sys", "/dev", "/run", "/var", "/etc", "/boot", "/tmp", "/mnt", "/media")


def within(path: str, folders: tuple[str, ...]) -> bool:
    """Whether a path is one of the folders or below one."""
    return any(path == folder or path.startswith(folder.rstrip("/") + "/") for folder in folders)


def too_wide(path: str) -> bool:
    """Whether showing this folder would show a whole home, or the whole of a system folder."""
    path = os.path.normpath(path)
    return path in _NEVER or within(path, ("/proc", "/sys", "/dev")) or Path(path).parent == Path("/home")


def _home(config: Path) -> str | None:
    """The `home` of a virtual environment: the folder of the Python it was made from."""
    try:
        lines = config.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return None
    for line in lines[:50]:
        key, _, value = line.partition("=")
        if key.strip() == "home":
            return value.strip()
    return None


def _shebang(path: str) -> str | None:
    try:
        with open(path, "rb") as file:
            first = file.read(256)
    except OSError:
        return None
    if not first.startswith(b"#!"):
        return None
    words = first[2:].split(b"\n", 1)[0].split()
    return os.fsdecode(words[0]) if words else None


def needed(program: str, foreign: Callable[[str], bool]) -> tuple[str, ...]:
    """Folders or files to show for an absolute program path; none for what the base system or a search path gives.

    The prefix of a program in a `bin` folder is that folder's parent, unless that would show a home as a whole; then,
    and for a program that lies elsewhere, the one file. What an agent wrote (`foreign`) names nothing to show: it could
    name any file of the host.
    """
    found: dict[str, None] = {}
    queue = [program]
    seen: set[str] = set()
    while queue:
        path = queue.pop()
        if path in seen or not os.path.isabs(path) or within(path, BASE) or not os.path.exists(path):
            continue
        seen.add(path)
        if foreign(path):
            continue
        folder = os.path.dirname(path)
        prefix = os.path.dirname(folder)
        found[prefix if os.path.basename(folder) == "bin" and not too_wide(prefix) else path] = None
        config = Path(prefix, "pyvenv.cfg")
        if not foreign(str(config)) and (home := _home(config)):
            queue.append(os.path.join(home, "python3"))
        if interpreter := _shebang(path):
            queue.append(interpreter)
        # Every link on the way is followed by itself: each may lie in a tree of its own.
        if os.path.islink(path):
            queue.append(os.path.normpath(os.path.join(folder, os.readlink(path))))
        queue.append(os.path.realpath(path))
    return tuple(found)
