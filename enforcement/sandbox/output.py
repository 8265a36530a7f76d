"""What an agent prints when nobody listens: the first MiB on disk, the rest counted and dropped."""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["LIMIT", "Output"]

LIMIT = 1 << 20


class Output:
    """A pipe whose reading end goes to a bounded file. The agent never blocks on it and never fills the disk."""

    def __init__(self, path: Path) -> None:
        self.reader, self.writer = os.pipe2(os.O_CLOEXEC)
        os.set_blocking(self.reader, False)
        self._file = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        self._room = LIMIT
        self._dropped = 0

    def copy(self) -> bool:
        """Take what is there now; False at the end of it."""
        try:
            data = os.read(self.reader, 65536)
        except BlockingIOError:
            return True
        if not data:
            return False
        kept = data[: self._room]
        if kept:
            os.write(self._file, kept)
            self._room -= len(kept)
        self._dropped += len(data) - len(kept)
        return True

    def finish(self) -> int:
        """Take the rest and close; how many bytes were dropped in all."""
        while True:
            try:
                data = os.read(self.reader, 65536)
            except BlockingIOError:
                break
            if not data:
                break
            kept = data[: self._room]
            if kept:
                os.write(self._file, kept)
                self._room -= len(kept)
            self._dropped += len(data) - len(kept)
        os.close(self.reader)
        os.close(self._file)
        return self._dropped
