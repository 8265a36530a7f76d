"""What sealing did to each thread, in the sandbox's folder: nothing is called sealed that is not written here.

/proc shows how many filters a thread has and not which, and nothing of Landlock's rules. A number alone proves nothing:
the agent's launch gave it filters, and it may add its own. So it is written down per thread what the kernel answered
when the filter and the rules were put on it; neither can be taken off a thread again.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from clawback.enforcement.sandbox.record import Sandbox

__all__ = ["Mark", "read", "write"]

_NAME = "seal.json"


@dataclass(frozen=True, slots=True)
class Mark:
    """One thread. `ticks`: its start, as in /proc/TID/stat, since numbers are reused; `filters`: how many seccomp
    filters it had before it was first sealed; `sealed`, `walled`: whether the kernel took the sealed filter for it, and
    Landlock's rules.
    """

    ticks: int
    filters: int
    sealed: bool = False
    walled: bool = False


def read(box: Sandbox) -> dict[int, Mark]:
    """Thread → what was done to it; empty before the first seal."""
    try:
        known = json.loads(Path(box.folder, _NAME).read_text())
    except FileNotFoundError:
        return {}
    return {int(tid): Mark(*values) for tid, values in known.items()}


def write(box: Sandbox, marks: Mapping[int, Mark]) -> None:
    """All of it anew; a reader sees the old or the new."""
    path = Path(box.folder, _NAME)
    draft = path.with_suffix(".tmp")
    draft.write_text(
        json.dumps({str(tid): [one.ticks, one.filters, one.sealed, one.walled] for tid, one in marks.items()})
    )
    draft.replace(path)
