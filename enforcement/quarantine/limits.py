"""Limits that restricting lowers and release puts back from disk: no new processes, little processor time and memory.

Memory where the kernel can slow an agent down instead of killing it, which would take its evidence along (v2 alone).
"""

from __future__ import annotations

import json
import os
from pathlib import Path

from clawback.enforcement.quarantine import tree
from clawback.enforcement.sandbox.record import Sandbox

__all__ = ["KEPT", "lower", "lowered", "put_back"]

KEPT = "restrict.json"
"""In the sandbox's folder: file → what it held before."""

_PAGE = os.sysconf("SC_PAGE_SIZE")
_LEAST = 64 << 20
"""Bytes: above a quarter of its limit, and this, an agent is slowed down by having to give memory back."""

_PERIOD = 100_000
_QUOTA = 10_000
"""A tenth of one processor: enough to be watched, too little to be of use."""


def lower(box: Sandbox) -> list[str]:
    """Lower what there is a controller for; returns what there is none for, or what the kernel refused."""
    wanted, missing = _wanted(box)
    kept = _kept(box)
    for path in wanted:
        if path not in kept:
            kept[path] = tree.read(path).strip()
    # On disk before anything changes: a release after a crash has nothing else to go by.
    draft = Path(box.folder, KEPT + ".tmp")
    draft.write_text(json.dumps(kept))
    draft.replace(Path(box.folder, KEPT))
    for path, value in wanted.items():
        try:
            tree.write(path, value)
        except OSError as error:
            missing.append(f"{Path(path).name} not lowered: {error.strerror}")
    return missing


def lowered(box: Sandbox) -> tuple[list[str], list[str]]:
    """(what holds, what does not), in words."""
    wanted, missing = _wanted(box)
    held: list[str] = []
    for path, value in wanted.items():
        try:
            now = tree.read(path).strip()
        except OSError as error:
            now = error.strerror or "not readable"
        (held if now == value else missing).append(f"{Path(path).name} {now}")
    return held, missing


def put_back(box: Sandbox) -> list[str]:
    """Write the old values; returns what could not be. A cgroup that is gone has no limits."""
    left = []
    for path, value in _kept(box).items():
        try:
            tree.write(path, value)
            if tree.read(path).strip() != value:
                left.append(f"{Path(path).name} is not {value} again")
        except FileNotFoundError:
            continue
        except OSError as error:
            left.append(f"{Path(path).name}: {error.strerror}")
    if not left:
        Path(box.folder, KEPT).unlink(missing_ok=True)
    return left


def _wanted(box: Sandbox) -> tuple[dict[str, str], list[str]]:
    """File → value for the controllers that there are, and what is missing without the others."""
    wanted, missing = {}, []
    pids = f"{box.controllers.get('pids', box.cgroup)}/pids.max"
    if _there(pids):
        wanted[pids] = "0"  # those that run stay; no fork or thread succeeds, whatever ends meanwhile
    else:
        missing.append("new processes: there is no pids controller")
    quota, unified = f"{box.controllers.get('cpu', '')}/cpu.cfs_quota_us", f"{box.cgroup}/cpu.max"
    if "cpu" in box.controllers and _there(quota):
        period = int(tree.read(f"{box.controllers['cpu']}/cpu.cfs_period_us"))
        wanted[quota] = str(max(1000, period * _QUOTA // _PERIOD))
    elif box.cgroup and _there(unified):
        wanted[unified] = f"{_QUOTA} {_PERIOD}"
    else:
        missing.append("processor time: there is no cpu controller")
    high = f"{box.cgroup}/memory.high"
    if box.cgroup and _there(high):
        most = tree.read(f"{box.cgroup}/memory.max").strip()
        wanted[high] = str(max(_LEAST, int(most) // 4 if most.isdigit() else 0) // _PAGE * _PAGE)
    return wanted, missing


def _kept(box: Sandbox) -> dict[str, str]:
    try:
        kept: dict[str, str] = json.loads(Path(box.folder, KEPT).read_text())
    except FileNotFoundError:
        return {}
    # Only files of this sandbox's own groups are ever written, whatever the file says.
    own = tuple(f"{group}/" for group in (box.cgroup, *box.controllers.values()) if group)
    return {path: value for path, value in kept.items() if path.startswith(own) and ".." not in path}


def _there(path: str) -> bool:
    return path.startswith("/sys/") and os.access(path, os.F_OK)
