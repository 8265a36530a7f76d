"""Level 1 for many agents at once: told in one pass, read back in the next, and whatever does not agree done singly."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Sequence

from clawback.enforcement.core import group_freeze
from clawback.enforcement.core.entry import Entry
from clawback.enforcement.quarantine.freeze import ORDER
from clawback.enforcement.sandbox.record import Sandbox
from clawback.model import Enforcement, Level, LevelResult

__all__ = ["read_back", "strike"]

_BYTES = 1 << 16


def strike(entries: Sequence[Entry]) -> None:
    """Tell the kernel to freeze each leaf; nothing is read back."""
    for entry in entries:
        if entry.box.cgroup:
            group_freeze.strike(entry.box.cgroup)


def read_back(entry: Entry) -> LevelResult | None:
    """What freezing one leaf came to, as `quarantine.freeze.apply` would say it of a leaf that was told to freeze and
    did; None where that is not so, or there is no leaf: then it has to be done in the ordinary way.

    A seal under way thaws its agent for a moment, and goes by the order file when it is done: so that is written before
    the leaf is read.
    """
    box = entry.box
    if not box.cgroup:
        return None
    began = time.perf_counter_ns()
    with contextlib.suppress(OSError):  # as `freeze` does: a full disk must not keep an agent running
        os.close(os.open(f"{box.folder}/{ORDER}", os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600))
    try:
        frozen = b"frozen 1" in _read(box, "cgroup.events") and _read(box, "cgroup.freeze").startswith(b"1")
        processes = len(set(_read(box, "cgroup.procs").split()))
        alone = b"nr_descendants 0" in _read(box, "cgroup.stat")
    except OSError:
        return None  # gone, or going: the ordinary way says which
    if not (frozen and processes and alone):
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
