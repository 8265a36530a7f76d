"""Tickets as files: `STATE/tickets/INCIDENT.md` and `INCIDENT.json`, one pair an incident, replaced as a whole."""

from __future__ import annotations

import os
import re
from pathlib import Path

from clawback.errors import InvalidInput, NotEnforced

__all__ = ["FileTickets", "replace"]

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_SUFFIX = {"markdown": ".md", "jira": ".json"}


class FileTickets:
    """`clawback.world.Tickets` in a folder. The same incident is the same pair of files, replaced at each write."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def write(self, incident: str, *, markdown: str, jira: str) -> dict[str, str]:
        """Create or replace; durable when this returns. `NotEnforced` where the disk refuses."""
        paths = {key: self._path(incident, key) for key in _SUFFIX}
        try:
            self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            for key, text in (("markdown", markdown), ("jira", jira)):
                replace(paths[key], text)
        except OSError as error:
            raise NotEnforced(
                f"ticket {incident} not written to {self._folder}: {error.strerror}", hint="check space and permissions"
            ) from None
        return {key: str(path) for key, path in paths.items()}

    def read(self, incident: str) -> dict[str, str]:
        """The texts as they are on disk; empty where there is no ticket."""
        found = {key: self._path(incident, key) for key in _SUFFIX}
        return {key: path.read_text("utf-8") for key, path in found.items() if path.is_file()}

    def tracked(self, incident: str) -> None:
        """There is no tracker."""
        del incident

    def _path(self, incident: str, key: str) -> Path:
        if not _NAME.fullmatch(incident):
            raise InvalidInput("incident: not an id that can name a file", hint="letters, digits, dots and dashes")
        return self._folder / f"{incident}{_SUFFIX[key]}"


def replace(path: Path, text: str) -> None:
    """Write beside it, flush, rename: a reader sees the old ticket or the new one, after a crash too."""
    new = path.with_name(f".{path.name}.new")
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with open(descriptor, "wb") as file:  # noqa: PTH123 - a descriptor has no path
        file.write(text.encode("utf-8", "backslashreplace"))
        file.flush()
        os.fsync(descriptor)
    new.rename(path)
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
