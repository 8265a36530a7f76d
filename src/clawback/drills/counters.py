"""What a drill's agent says of itself in shared memory."""

from __future__ import annotations

import mmap
import struct
from pathlib import Path

__all__ = ["Counters"]


class Counters:
    """Rounds of work, bytes uploaded, and the time of its last instruction."""

    def __init__(self, path: Path) -> None:
        path.write_bytes(bytes(24))
        path.chmod(0o666)  # the agent's own user, whichever the core gives it, writes here
        with path.open("r+b") as file:
            self._map = mmap.mmap(file.fileno(), 24)

    def read(self) -> tuple[int, int, int]:
        """(rounds, bytes uploaded, monotonic ns of the last instruction)."""
        rounds, uploaded, last = struct.unpack_from("<QQQ", self._map)
        return int(rounds), int(uploaded), int(last)
