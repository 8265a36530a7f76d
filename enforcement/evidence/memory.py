"""The memory of a frozen agent, as far as it is wanted and fits: its heaps, stacks and whatever else it can write to.

Off unless asked for. It holds whatever the agent held: known secrets are overwritten with `*`, those that nobody knows
of are not. Debuggers wait for a frozen process for ever; /proc/PID/mem does not.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from clawback.enforcement.evidence.clean import Cleaner
from clawback.enforcement.evidence.writer import Writer
from clawback.enforcement.quarantine import freeze, tree
from clawback.enforcement.sandbox.record import Sandbox

__all__ = ["NOTE", "dump"]

NOTE = "known secret values were overwritten with *; other secrets may be in it"

_BLOCK = 64 << 10
_STEP = 1 << 20
_MAPS = 4 << 20


@dataclass(frozen=True, slots=True)
class _Mapping:
    start: int
    end: int
    rights: str
    name: str


def dump(box: Sandbox, writer: Writer, cleaner: Cleaner) -> None:
    """`memory-PID.bin` and `memory-PID.json` of each process: blocks of 64 KiB that are not all zero, and where each
    was. Nothing of a tree that runs: it would change under the reading.
    """
    if not box.cgroup or not freeze.frozen(box):
        writer.truncated.append("memory: not read: the agent is not frozen by its cgroup")
        return
    for pid in tree.processes(box):
        try:
            _process(pid, writer, cleaner)
        except (FileNotFoundError, ProcessLookupError):
            writer.truncated.append(f"memory: process {pid} has ended")
        except PermissionError as error:
            writer.truncated.append(f"memory: process {pid}: {error.strerror}")


def _process(pid: int, writer: Writer, cleaner: Cleaner) -> None:
    mappings = sorted(_chosen(pid), key=lambda one: (one.name not in {"[heap]", "[stack]"}, one.end - one.start))
    index: list[dict[str, Any]] = []
    memory = os.open(f"/proc/{pid}/mem", os.O_RDONLY | os.O_CLOEXEC)
    try:
        with writer.stream(f"memory-{pid}.bin") as out:
            for mapping in mappings:
                blocks = []
                for offset, block in _blocks(_masked(memory, mapping, cleaner)):
                    if out.full or writer.late:
                        break
                    if block.count(0) != len(block):
                        blocks.append([mapping.start + offset, len(block), out.bytes])
                        out.write(block)
                index.append(
                    {
                        "from": mapping.start,
                        "to": mapping.end,
                        "rights": mapping.rights,
                        "name": cleaner.text(mapping.name),
                        "blocks": blocks,
                    }
                )
                if out.full or writer.late:
                    writer.truncated.append(f"memory: process {pid}: {len(index)} of {len(mappings)} mappings")
                    break
    finally:
        os.close(memory)
    about = {"pid": pid, "note": NOTE, "blocks_are": "address, bytes, offset", "maps": index}
    writer.text(f"memory-{pid}.json", json.dumps(about))


def _chosen(pid: int) -> Iterator[_Mapping]:
    """What the process can write to and no file or device gives anew."""
    for line in tree.read(f"/proc/{pid}/maps", limit=_MAPS).splitlines():
        fields = line.split(None, 5)
        if len(fields) < 5 or not fields[1].startswith("rw"):
            continue
        name = fields[5] if len(fields) > 5 else ""
        if fields[1].endswith("s") or name.startswith(("/dev/", "[v")):
            continue  # shared ones may be a device's; the kernel's own pages hold nothing of the agent's
        start, _, end = fields[0].partition("-")
        yield _Mapping(int(start, 16), int(end, 16), fields[1], name)


def _masked(memory: int, mapping: _Mapping, cleaner: Cleaner) -> Iterator[bytes]:
    """The mapping's bytes, known secrets overwritten, each in its place: what cannot be read is zeros."""
    keep = max(0, cleaner.longest - 1)
    pending = b""
    at = mapping.start
    while at < mapping.end:
        wanted = min(_STEP, mapping.end - at)
        try:
            part = os.pread(memory, wanted, at)
        except OSError:  # a guard page, or one whose file has been cut short
            part = b""
        at += wanted
        data = cleaner.mask(pending + part.ljust(wanted, b"\0"))
        # A value may go on in the next part: its beginning waits. One that ends here is overwritten already.
        cut = max(0, len(data) - keep)
        yield data[:cut]
        pending = data[cut:]
    yield pending


def _blocks(parts: Iterator[bytes]) -> Iterator[tuple[int, bytes]]:
    buffer = bytearray()
    offset = 0
    for part in parts:
        buffer += part
        while len(buffer) >= _BLOCK:
            yield offset, bytes(buffer[:_BLOCK])
            del buffer[:_BLOCK]
            offset += _BLOCK
    if buffer:
        yield offset, bytes(buffer)
