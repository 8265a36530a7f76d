"""Documents as files: `STATE/compliance/INCIDENT/NAME.json`, replaced as a whole."""

from __future__ import annotations

import os
import re
from pathlib import Path

from clawback.errors import InvalidInput, NotEnforced, Unreachable

__all__ = ["FileDocuments"]

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


class FileDocuments:
    """`clawback.world.Documents` in a folder, mode 0700: what they say is for auditors."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def write(self, incident: str, name: str, text: str) -> str:
        """Create or replace; durable when this returns. `NotEnforced` where the disk refuses."""
        path = self._path(incident, name)
        new = path.with_name(f".{path.name}.new")
        try:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
            with open(descriptor, "wb") as file:  # noqa: PTH123 - a descriptor has no path
                file.write(text.encode("utf-8", "backslashreplace"))
                file.flush()
                os.fsync(descriptor)
            new.rename(path)
        except OSError as error:
            raise NotEnforced(f"{path} not written: {error.strerror}", hint="check space and permissions") from None
        return str(path)

    def read(self, incident: str, name: str) -> str:
        """As it is on disk, with escapes for what is no UTF-8; empty where there is none. `Unreachable` where it cannot
        be read.
        """
        path = self._path(incident, name)
        try:
            return path.read_bytes().decode("utf-8", "backslashreplace") if path.is_file() else ""
        except OSError as error:
            raise Unreachable(f"{path} cannot be read: {error.strerror}", hint="who may read it?") from None

    def _path(self, incident: str, name: str) -> Path:
        if not _NAME.fullmatch(incident) or not _NAME.fullmatch(name):
            raise InvalidInput("incident or name: not one that can name a file", hint="letters, digits, dots, dashes")
        return self._folder / incident / f"{name}.json"
