"""Follow one growing JSONL file through rotation, truncation and restarts, losing no line and holding at most one."""

from __future__ import annotations

import hashlib
import os
import stat
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import structlog

from clawback.watch.lines import Lines

__all__ = ["Position", "Tail"]

_CHUNK = 256 * 1024
_COMPRESSED = (".bz2", ".gz", ".xz", ".zst")
_HEAD = 512  # enough of the first line to hold its writer and sequence: tells a reused inode from the same file

_log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class Position:
    """Where a reader stands: in which file, known by inode and the digest of its beginning, and at which byte."""

    device: int
    inode: int
    offset: int
    head: str
    head_length: int
    skipping: bool = False


class Tail:
    """One file by its name. `counts`: `too-long` lines, `truncated`, `rotated`, `unfinished` lines, `position-lost`."""

    def __init__(self, path: Path, position: Position | None = None) -> None:
        self.path = path
        self.counts: Counter[str] = Counter()
        self._fd = -1
        self._base = 0  # the offset at which `_lines` began
        self._lines = Lines()
        self._backlog: list[Path] = []
        if position is None or not self._resume(position):
            # Nothing is known of what was read: all that is left is read again, which repeats and loses nothing.
            self._backlog = _oldest_first(path)

    def read(self) -> Iterator[bytes]:
        """All whole lines that are there now, in order. Stops at the end; call again when the file has grown."""
        while True:
            if self._fd < 0 and not self._open_next():
                return
            yield from self._drain()
            if not self._moved_on():
                return
            yield from self._drain()  # what came between the end we saw and the rename
            if self._lines.unfinished:
                self.counts["unfinished"] += 1
            self._close_file()

    def history(self, limit: int) -> Iterator[bytes]:
        """The whole lines among the last `limit` bytes before where reading goes on. To be asked before `read`."""
        if self._fd < 0:
            return
        start = max(0, self._base - limit)
        lines = Lines()
        first = start > 0  # which then is most likely half a line
        while start < self._base:
            chunk = os.pread(self._fd, min(_CHUNK, self._base - start), start)
            if not chunk:
                return
            start += len(chunk)
            for line in lines.feed(chunk):
                if line is not None and not first:
                    yield line
                first = False

    def position(self) -> Position | None:
        """Where a later `Tail` should go on: after the last line that `read` gave out. None where nothing is open."""
        if self._fd < 0:
            return None
        status = os.fstat(self._fd)
        length = min(_HEAD, status.st_size)
        return Position(
            device=status.st_dev,
            inode=status.st_ino,
            offset=self._base + self._lines.consumed,
            head=_digest(self._fd, length),
            head_length=length,
            skipping=self._lines.skipping,
        )

    def close(self) -> None:
        """Close the file; `read` opens it again, from its start."""
        self._close_file()

    def _drain(self) -> Iterator[bytes]:
        while True:
            chunk = os.read(self._fd, _CHUNK)
            if not chunk:
                if self._shrunk():
                    continue
                return
            for line in self._lines.feed(chunk):
                if line is None:
                    self.counts["too-long"] += 1
                else:
                    yield line
            if len(chunk) < _CHUNK:
                # Most often the end. If not, the kernel reports the rest as a further change.
                return

    def _shrunk(self) -> bool:
        if os.fstat(self._fd).st_size >= self._base + self._lines.consumed + self._lines.unfinished:
            return False
        self.counts["truncated"] += 1
        _log.warning("telemetry file truncated", path=str(self.path))
        os.lseek(self._fd, 0, os.SEEK_SET)
        self._base, self._lines = 0, Lines()
        return True

    def _moved_on(self) -> bool:
        """Whether the name belongs to another file now, or older files were finished and the name is next."""
        if self._backlog:
            return True
        try:
            there = self.path.stat(follow_symlinks=False)
        except FileNotFoundError:
            return False  # between a rename and the new file; the old one may still grow
        here = os.fstat(self._fd)
        if (there.st_dev, there.st_ino) == (here.st_dev, here.st_ino):
            return False
        self.counts["rotated"] += 1
        return True

    def _open_next(self) -> bool:
        path = self._backlog.pop(0) if self._backlog else self.path
        return self._open(path)

    def _open(self, path: Path) -> bool:
        # Neither a link nor a pipe: whoever can put one here must not make us read elsewhere, or wait for ever.
        try:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        except FileNotFoundError:
            return False
        except OSError as error:
            self._refuse(path, error.strerror or "cannot be opened")
            return False
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            os.close(fd)
            self._refuse(path, "not a regular file")
            return False
        self._fd, self._base, self._lines = fd, 0, Lines()
        return True

    def _refuse(self, path: Path, why: str) -> None:
        self.counts["unreadable"] += 1
        if self.counts["unreadable"] == 1:
            _log.error("telemetry file not read", path=str(path), error=why)

    def _close_file(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _resume(self, position: Position) -> bool:
        """Go on in the file that the position names, which may have been rotated away, then in all that came after."""
        files = _oldest_first(self.path)
        for index, path in enumerate(files):
            status = path.stat(follow_symlinks=False)
            if (status.st_dev, status.st_ino) != (position.device, position.inode) or not self._open(path):
                continue
            if status.st_size < position.offset or _digest(self._fd, position.head_length) != position.head:
                self._close_file()
                continue
            os.lseek(self._fd, position.offset, os.SEEK_SET)
            self._base, self._lines = position.offset, Lines(skipping=position.skipping)
            self._backlog = [later for later in files[index + 1 :] if later != self.path]
            if self._backlog or path != self.path:
                self._backlog.append(self.path)
            return True
        self.counts["position-lost"] += 1
        _log.warning("telemetry file that was being read is gone", path=str(self.path))
        return False


def _oldest_first(path: Path) -> list[Path]:
    """The rotated files of this name that still lie beside it, and it itself last."""
    rotated = [
        (entry.stat(follow_symlinks=False).st_mtime_ns, Path(entry.path))
        for entry in (os.scandir(path.parent) if path.parent.is_dir() else ())
        if entry.name.startswith(f"{path.name}.")
        and not entry.name.endswith(_COMPRESSED)
        and entry.is_file(follow_symlinks=False)
    ]
    found = [item for _, item in sorted(rotated)]
    return [*found, path] if path.exists() else found


def _digest(fd: int, length: int) -> str:
    return hashlib.sha256(os.pread(fd, length, 0)).hexdigest()
