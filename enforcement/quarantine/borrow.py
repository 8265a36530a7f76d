"""Places in a stopped process's memory: an instruction to make calls by, and room for their arguments."""

from __future__ import annotations

import contextlib
import re
import resource
from collections.abc import Iterator
from typing import BinaryIO

from clawback.enforcement.quarantine import tree

__all__ = ["SPARE", "more_descriptors", "peek", "places", "poke"]

SPARE = 4096
"""Bytes of room."""

_MAP = re.compile(r"([0-9a-f]+)-([0-9a-f]+) (....) \S+ \S+ \S+ *(.*)")
_INSTRUCTION = b"\x0f\x05"


def places(pid: int, memory: BinaryIO) -> tuple[int, int]:
    """Addresses of a `syscall` instruction and of memory to borrow while every thread of the process is stopped."""
    instruction, spare = 0, 0
    regions = []
    for line in tree.read(f"/proc/{pid}/maps", limit=1 << 22).splitlines():
        match = _MAP.match(line)
        if match is None:
            continue
        start, end = int(match[1], 16), int(match[2], 16)
        regions.append((match[4] != "[vdso]", start, end, match[3]))
        if not spare and match[3] == "rw-p" and end - start >= SPARE:
            spare = start
    for _other, start, end, flags in sorted(regions):  # the kernel's own page first: it always holds one
        if flags[2] == "x" and not instruction and start < 1 << 63:
            found = peek(memory, start, min(end - start, 1 << 20)).find(_INSTRUCTION)
            instruction = start + found if found >= 0 else 0
    if not instruction or not spare:
        raise ValueError("no place in its memory to make a call from")
    return instruction, spare


def peek(memory: BinaryIO, address: int, size: int) -> bytes:
    """Read from /proc/PID/mem."""
    memory.seek(address)
    data: bytes = memory.read(size)
    return data


def poke(memory: BinaryIO, address: int, data: bytes) -> None:
    """Write to it, whatever the mapping's permissions. `ValueError` where not all could be written."""
    memory.seek(address)
    if memory.write(data) != len(data):
        raise ValueError("its memory could not be written")


@contextlib.contextmanager
def more_descriptors(pid: int) -> Iterator[None]:
    """Room for one more descriptor, meanwhile, in a process that may have opened all it may to be in the way."""
    kept: tuple[int, int] | None = None
    with contextlib.suppress(OSError, ValueError):  # without the right to, it has the room that it has
        soft, hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (max(soft, hard) + 16, max(soft, hard) + 16))
        kept = (soft, hard)
    try:
        yield
    finally:
        if kept is not None:
            with contextlib.suppress(OSError):  # it has ended
                resource.prlimit(pid, resource.RLIMIT_NOFILE, kept)
