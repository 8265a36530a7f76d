"""What an agent prints when nobody listens: the first MiB on disk, the rest counted and dropped."""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["LIMIT", "Output"]

LIMIT = 1 << 20


class Output:
    """A pipe whose reading end goes to a bounded file. The agent never blocks on it and never fills the disk."""

    def __init__(self) -> None:
        self.reader, self.writer = os.pipe2(os.O_CLOEXEC)
        os.set_blocking(self.reader, False)
        self._file = -1
        self._room = LIMIT
        self._dropped = 0

    def open(self, path: Path) -> None:
        """Where it goes; before the first copy."""
        self._file = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_TRUNC | os.O_CLOEXEC, 0o600)

    def copy(self) -> bool:
        """Take what is there now; False at the end of it."""
        try:
            data = os.read(self.reader, 65536)
        except BlockingIOError:
            return True
        kept = data[: self._room]
        if kept:
            os.write(self._file, kept)
            self._room -= len(kept)
        self._dropped += len(data) - len(kept)
        return bool(data)

    def finish(self) -> int:
        """Take what is left and close; how many bytes were dropped in all."""
        os.set_blocking(self.reader, True)  # every writer died with the sandbox: this ends at the end
        while self.copy():
            pass
        os.close(self.reader)
        os.close(self._file)
        return self._dropped
