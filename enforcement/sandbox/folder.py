"""An instance's folder: made beside the agents' while there is time, filled at its launch, moved among them whole."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path

__all__ = ["Folder"]

_RECORD, _RESTRICTIONS, _OUTPUT = "agent.json", "restrictions.json", "output.log"
_ENDING = ".exit.json"  # the shim's to fill and to rename: under its own name it says that the agent has ended
_IN_ITS_WAY = {errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR, errno.ENOENT}


class Folder:
    """`SPARES/NAME/NAME`, then `AGENTS/AGENT/NAME`. What lies among the agents is an agent, so a spare lies elsewhere.

    Its files are made empty and kept open: making one on a journalled disk costs a launch more than restricting it.
    `descriptor`, `ending` and `output` are what the shim gets copies of.
    """

    def __init__(self, spares: Path, name: str) -> None:
        self._outer = spares / name
        self.path = self._outer / name
        self.path.mkdir(parents=True, mode=0o700)
        self._fds = {"": os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)}
        flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC
        for file in (_RECORD, _RESTRICTIONS, _OUTPUT, _ENDING):
            self._fds[file] = os.open(file, flags, 0o600, dir_fd=self.descriptor)

    @property
    def descriptor(self) -> int:
        """Of the folder itself, wherever it lies by now."""
        return self._fds[""]

    @property
    def ending(self) -> int:
        """Of `.exit.json`."""
        return self._fds[_ENDING]

    @property
    def output(self) -> int:
        """Of `output.log`."""
        return self._fds[_OUTPUT]

    def _fill(self, file: str, text: str) -> None:
        fd = self._fds.pop(file)
        try:
            data = text.encode()
            while data:
                data = data[os.write(fd, data) :]
        finally:
            os.close(fd)

    def restrictions(self, text: str) -> None:
        """Write `restrictions.json`; before the folder is published."""
        self._fill(_RESTRICTIONS, text)

    def publish(self, text: str, place: Path) -> None:
        """Write `agent.json` and move the folder to its place, whose name is its own: it appears there whole."""
        self._fill(_RECORD, text)
        try:
            self._outer.rename(place.parent)  # an agent's first: its own folder comes along
        except OSError as error:
            if error.errno not in _IN_ITS_WAY:
                raise
            place.parent.mkdir(parents=True, exist_ok=True)
            self.path.rename(place)
            self._outer.rmdir()
        self._outer = self.path = place

    def discard_output(self) -> None:
        """There will be no `output.log`."""
        os.close(self._fds.pop(_OUTPUT))
        os.unlink(_OUTPUT, dir_fd=self.descriptor)

    def close(self) -> None:
        """Let go: it is the shim's by now."""
        for fd in self._fds.values():
            os.close(fd)
        self._fds.clear()

    def remove(self) -> None:
        """There is no agent: take everything away."""
        self.close()
        shutil.rmtree(self._outer, ignore_errors=True)
