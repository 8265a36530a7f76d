"""What an agent prints when nobody listens: the first MiB on disk, the rest counted and dropped."""

from __future__ import annotations

import os

__all__ = ["LIMIT", "Output"]

LIMIT = 1 << 20


class Output:
    """A pipe whose reading end goes to a bounded file. The agent never blocks on it and never fills the disk."""

    def __init__(self, file: int) -> None:
        """`file` is a descriptor open for writing, closed at the end."""
        self.reader, self.writer = os.pipe2(os.O_CLOEXEC)
        os.set_blocking(self.reader, False)
        self._file = file
        self._room = LIMIT
        self._dropped = 0

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
