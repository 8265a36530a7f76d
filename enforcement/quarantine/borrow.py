"""Places in a stopped process's memory: an instruction to make calls by, and room for their arguments.

The kernel's own page (vdso) holds the instruction on x86-64, most programs do somewhere; one that has neither gets it
written over its own code for as long as all its threads stand still.
"""

from __future__ import annotations

import contextlib
import re
import resource
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from clawback.enforcement.kernel.registers import HERE
from clawback.enforcement.quarantine import tree

__all__ = ["SPARE", "Borrowed", "borrowed", "more_descriptors"]

SPARE = 4096
"""Bytes of room."""

_MAP = re.compile(r"([0-9a-f]+)-([0-9a-f]+) (....) \S+ \S+ \S+ *(.*)")
_MOST_READ = 1 << 20


@dataclass(frozen=True, slots=True)
class Borrowed:
    """Addresses in a process: `instruction` calls the kernel, `spare` is the room."""

    instruction: int
    spare: int


@dataclass(frozen=True, slots=True)
class _Region:
    name: str
    start: int
    end: int
    flags: str


@contextlib.contextmanager
def borrowed(tid: int, block: Callable[[int], bytes]) -> Iterator[Borrowed]:
    """Put `block`, made for its address, into the room; what was there, and code written over, is put back at the end.

    While every thread of the process is stopped. By a thread, since the process's first may have ended before the
    others and shows no memory then. `ValueError` where there is no place, or it cannot be written.
    """
    with Path(f"/proc/{tid}/mem").open("r+b", buffering=0) as memory:
        regions = _regions(tid)
        room = next((one for one in regions if one.flags == "rw-p" and one.end - one.start >= SPARE), None)
        content = block(room.start) if room else b""
        if room is None or len(content) > SPARE:
            raise ValueError("no room in its memory to make a call from")
        with contextlib.ExitStack() as kept:
            instruction = _found(memory, regions)
            if not instruction:
                instruction = _written(memory, regions, kept)
            kept.callback(_poke, memory, room.start, _peek(memory, room.start, len(content)))
            _poke(memory, room.start, content)
            yield Borrowed(instruction, room.start)


def _regions(tid: int) -> list[_Region]:
    found = []
    for line in tree.read(f"/proc/{tid}/maps", limit=1 << 24).splitlines():
        match = _MAP.match(line)
        if match is not None and int(match[1], 16) < 1 << 63:
            found.append(_Region(match[4], int(match[1], 16), int(match[2], 16), match[3]))
    return found


def _found(memory: BinaryIO, regions: list[_Region]) -> int:
    """Where the instruction is already: in the kernel's page, else in any code."""
    wanted = HERE.instruction if HERE else b""
    step = 1 if len(wanted) == 2 else 4
    for region in sorted(regions, key=lambda one: one.name != "[vdso]"):
        if region.flags[2] != "x":
            continue
        with contextlib.suppress(OSError):  # a page of a file that has become shorter
            code = _peek(memory, region.start, min(region.end - region.start, _MOST_READ))
            at = code.find(wanted)
            while at >= 0 and at % step:
                at = code.find(wanted, at + 1)
            if at >= 0:
                return region.start + at
    return 0


def _written(memory: BinaryIO, regions: list[_Region], kept: contextlib.ExitStack) -> int:
    """Over code of its own, which the kernel copies for the writer: no file and no other process sees it."""
    wanted = HERE.instruction if HERE else b""
    for region in regions:
        if region.flags[2:] == "xp":
            before = _peek(memory, region.start, len(wanted))
            _poke(memory, region.start, wanted)
            kept.callback(_poke, memory, region.start, before)
            return region.start
    raise ValueError("no code in its memory to make a call from")


def _peek(memory: BinaryIO, address: int, size: int) -> bytes:
    memory.seek(address)
    data: bytes = memory.read(size)
    return data


def _poke(memory: BinaryIO, address: int, data: bytes) -> None:
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
