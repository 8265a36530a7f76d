"""Level 1 for many agents at once: told in one pass, read back in the next, and whatever does not agree done singly."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence

from clawback.enforcement.core import group_freeze
from clawback.enforcement.core.entry import Entry
from clawback.enforcement.sandbox.record import Sandbox
from clawback.model import Enforcement, Level, LevelResult

__all__ = ["read_back", "strike"]

_BYTES = 1 << 16


def strike(entries: Sequence[Entry]) -> frozenset[str]:
    """Tell the kernel to freeze each leaf; the instances whose kernel took it. Nothing is read back."""
    return frozenset(
        entry.box.instance for entry in entries if entry.box.cgroup and group_freeze.strike(entry.box.cgroup)
    )


def read_back(box: Sandbox) -> LevelResult | None:
    """What freezing a leaf came to, as `quarantine.freeze.apply` would say it where the leaf took the order and did;
    None where that is not so: then it has to be done in the ordinary way. For a leaf that `strike` names, while nothing
    that thaws is under way.
    """
    began = time.perf_counter_ns()
    try:
        frozen = b"frozen 1" in _read(box, "cgroup.events")
        processes = len(set(_read(box, "cgroup.procs").split()))
    except OSError:
        return None  # gone, or going: the ordinary way says which
    if not (frozen and processes):
        return None
    return LevelResult(
        level=Level.FREEZE,
        enforcement=Enforcement.FULL,
        observed=f"{processes} process{'' if processes == 1 else 'es'} frozen",
        counts={"processes": processes, "frozen": processes},
        elapsed_ms=(time.perf_counter_ns() - began) / 1e6,
        at_ns=time.time_ns(),
    )


def _read(box: Sandbox, file: str) -> bytes:
    fd = os.open(f"{box.cgroup}/{file}", os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.read(fd, _BYTES)
    finally:
        os.close(fd)
