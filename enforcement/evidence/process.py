"""One process as /proc shows it: everything but the contents of its memory, its files and its environment."""

from __future__ import annotations

import os
from typing import Any

from clawback.enforcement.evidence.clean import Cleaner
from clawback.enforcement.kernel.syscalls import NAME
from clawback.enforcement.quarantine import tree

__all__ = ["process"]

_KINDS = ("cgroup", "ipc", "mnt", "net", "pid", "user", "uts")
_STATUS = frozenset({
    "Name", "State", "Tgid", "PPid", "NSpid", "Uid", "Gid", "Groups", "FDSize", "Threads", "VmPeak", "VmSize", "VmRSS",
    "RssAnon", "RssShmem", "VmLck", "CapPrm", "CapEff", "CapBnd", "CapAmb", "NoNewPrivs", "Seccomp", "Seccomp_filters",
    "SigPnd", "ShdPnd", "SigBlk", "SigCgt", "TracerPid", "CoreDumping", "voluntary_ctxt_switches",
})  # fmt: skip
_ARGUMENTS = 16 << 10
_MAPS = 1 << 20
_THREADS = 64
_NAMES = 512


def process(pid: int, cleaner: Cleaner, *, descriptors: int, truncated: list[str]) -> dict[str, Any]:
    """Its facts, bounded. `FileNotFoundError` or `ProcessLookupError` where it is gone. Works on a frozen process."""
    path = f"/proc/{pid}"
    raw = _text(f"{path}/cmdline", _ARGUMENTS + 1)
    if len(raw) > _ARGUMENTS:
        truncated.append(f"process {pid}: command line")
        raw = raw[:_ARGUMENTS]
    arguments = raw.rstrip("\0").split("\0") if raw else []
    return {
        "pid": pid,
        "start_ticks": tree.start_ticks(pid),
        "status": cleaner.value(_status(path)),
        "command": cleaner.arguments(arguments),
        "exe": cleaner.text(_link(f"{path}/exe")),
        "cwd": cleaner.text(_link(f"{path}/cwd")),
        "root": cleaner.text(_link(f"{path}/root")),
        "namespaces": {kind: _link(f"{path}/ns/{kind}") for kind in _KINDS},
        "cgroup": cleaner.text(_text(f"{path}/cgroup", 4096)).splitlines(),
        "limits": _limits(_text(f"{path}/limits", 8192)),
        "environment_names": cleaner.value(_environment_names(path, pid, truncated)),
        "descriptors": _descriptors(path, pid, cleaner, descriptors, truncated),
        "maps": cleaner.value(_maps(path, pid, truncated)),
        "threads": _threads(path, pid, cleaner, truncated),
        "io": _io(path),
    }


def _status(path: str) -> dict[str, str]:
    lines = (line.partition(":") for line in tree.read(f"{path}/status", limit=16 << 10).splitlines())
    return {name: value.strip() for name, _, value in lines if name in _STATUS}


def _environment_names(path: str, pid: int, truncated: list[str]) -> list[str]:
    """Names alone: values are where secrets are kept. An entry without `=` has no name and is all value."""
    entries = _text(f"{path}/environ", 1 << 20).split("\0")
    names = [entry.partition("=")[0][:128] for entry in entries if "=" in entry]
    if len(names) > _NAMES:
        truncated.append(f"process {pid}: {_NAMES} of {len(names)} environment names")
    return names[:_NAMES]


def _descriptors(path: str, pid: int, cleaner: Cleaner, most: int, truncated: list[str]) -> list[dict[str, Any]]:
    try:
        numbers = sorted(int(name) for name in tree.names(f"{path}/fd"))
    except PermissionError:
        truncated.append(f"process {pid}: descriptors: permission denied")
        return []
    if len(numbers) > most:
        truncated.append(f"process {pid}: {most} of {len(numbers)} descriptors")
    found = []
    for number in numbers[:most]:
        try:
            flags = _text(f"{path}/fdinfo/{number}", 512)
        except (FileNotFoundError, ProcessLookupError):
            continue  # closed meanwhile
        fields = dict(line.split(":\t", 1) for line in flags.splitlines() if ":\t" in line)
        entry = {"fd": number, "target": cleaner.text(_link(f"{path}/fd/{number}"))}
        found.append(entry | {name: fields[name].strip() for name in ("flags", "pos", "mnt_id") if name in fields})
    return found


def _maps(path: str, pid: int, truncated: list[str]) -> dict[str, Any]:
    """What is mapped, summed up: files that may run, and memory that may run or is both written and run."""
    text = _text(f"{path}/maps", _MAPS + 1)
    if len(text) > _MAPS:
        truncated.append(f"process {pid}: memory maps")
    mappings, size = 0, 0
    programs: set[str] = set()
    odd: list[str] = []
    for line in text.splitlines():
        fields = line.split(None, 5)
        if len(fields) < 5:
            continue
        start, _, end = fields[0].partition("-")
        name = fields[5] if len(fields) > 5 else ""
        mappings += 1
        size += int(end, 16) - int(start, 16) if end else 0
        if "x" in fields[1] and name.startswith("/"):
            programs.add(name)
        if "x" in fields[1] and (not name or "w" in fields[1] or "(deleted)" in name or name.startswith("/memfd:")):
            odd.append(f"{fields[0]} {fields[1]} {name}".strip())
    return {
        "mappings": mappings,
        "kib": size >> 10,
        "executable_files": sorted(programs)[:_NAMES],
        "suspicious": odd[:_THREADS],
    }


def _threads(path: str, pid: int, cleaner: Cleaner, truncated: list[str]) -> list[dict[str, Any]]:
    tids = sorted(int(name) for name in tree.names(f"{path}/task"))
    if len(tids) > _THREADS:
        truncated.append(f"process {pid}: {_THREADS} of {len(tids)} threads")
    found = []
    for tid in tids[:_THREADS]:
        try:
            seen = tree.status(tid)
            entry: dict[str, Any] = {"tid": tid, "state": seen.state, "seccomp_filters": seen.filters}
            entry["name"] = cleaner.text(_text(f"{path}/task/{tid}/comm", 64).rstrip("\n"))
            number = _text(f"{path}/task/{tid}/syscall", 256).split(" ", 1)[0].strip()
            entry["in_syscall"] = NAME.get(int(number), number) if number.isdigit() else number
        except PermissionError:
            entry["in_syscall"] = "permission denied"
        except (FileNotFoundError, ProcessLookupError):
            continue
        found.append(entry)
    return found


def _limits(text: str) -> dict[str, list[str]]:
    """Name → soft and hard; the columns are fixed."""
    return {line[:26].strip(): line[26:68].split()[:2] for line in text.splitlines()[1:] if len(line) > 26}


def _io(path: str) -> dict[str, int]:
    try:
        lines = (line.partition(": ") for line in _text(f"{path}/io", 1024).splitlines())
        return {name: int(value) for name, _, value in lines if value.isdigit()}
    except PermissionError:
        return {}


def _text(path: str, limit: int) -> str:
    return tree.read(path, limit=limit)


def _link(path: str) -> str:
    try:
        return os.fsencode(os.readlink(path)).decode("utf-8", "backslashreplace")  # noqa: PTH115 - keeps odd bytes
    except PermissionError:
        return "permission denied"
    except FileNotFoundError:
        return ""  # a process without a program (a zombie), or a descriptor closed meanwhile
