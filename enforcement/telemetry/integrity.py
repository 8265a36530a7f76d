"""Is a sandbox still what was launched? Namespaces, mounts, cgroup, filters and no_new_privs, of every thread in it.

What the kernel does not show cannot be looked at: a thread's Landlock domain is in no file of /proc. That it holds is
proved by attempts from inside (`clawback.enforcement.sandbox.attempt`), not here.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from clawback.enforcement.sandbox.record import Sandbox

__all__ = ["Integrity", "owners", "strays"]

_NAMESPACES = ("user", "mnt", "pid", "net", "ipc", "uts", "cgroup")
_OURS = "clawback-restrict"  # a cover that the ladder lays over a secret and lifts again
_DELETED = "//deleted"
_GENERATIONS = 8  # of ours: zygote, helper, who joins, who tries
_THREADS = 512
_TOLD = 8
_FILE = "integrity.json"
_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Integrity:
    """What must not change while a sandbox lives, read from its first process; `filters` may only grow."""

    namespaces: tuple[str, ...]
    cgroup: str
    seccomp: str
    no_new_privs: str
    filters: int
    mounts: str

    @classmethod
    def read(cls, pid: int) -> Integrity:
        """As the kernel shows the process now. `OSError` where it is gone."""
        root = f"/proc/{pid}"
        status = _status(f"{root}/status")
        groups = _text(f"{root}/cgroup").splitlines()
        return cls(
            namespaces=_namespaces(root),
            cgroup=next((line[3:] for line in groups if line.startswith("0::")), ""),
            seccomp=status.get("Seccomp", "0"),
            no_new_privs=status.get("NoNewPrivs", "0"),
            filters=int(status.get("Seccomp_filters", "0")),
            mounts=_mounts(_text(f"{root}/mountinfo")),
        )

    @classmethod
    def of(cls, box: Sandbox) -> Integrity:
        """As at the launch: written down at the first reading, for the cores that come after. `OSError`: it is gone."""
        path = Path(box.folder, _FILE)
        try:
            found = json.loads(path.read_bytes())
            return cls(**{**found, "namespaces": tuple(found["namespaces"])})
        except FileNotFoundError:
            pass
        now = cls.read(box.pid)
        new = path.with_suffix(".new")
        new.write_text(json.dumps(asdict(now)))
        new.rename(path)
        return now

    def changes(self, now: Integrity) -> tuple[str, ...]:
        """What differs."""
        found = [
            name for name, was, is_ in zip(_NAMESPACES, self.namespaces, now.namespaces, strict=True) if was != is_
        ]
        same = ("cgroup", "seccomp", "no_new_privs", "mounts")
        found += [name for name in same if getattr(self, name) != getattr(now, name)]
        if now.filters < self.filters:
            found.append("filters")
        return tuple(found)


def strays(box: Sandbox, launched: Integrity, owned: Mapping[int, tuple[int, ...]]) -> tuple[str, ...]:
    """What is wrong with single processes, in words: one of another user in the leaf, one of the agent's outside, one
    in other namespaces, a thread without filter or no_new_privs. `owned`: user id → processes of the host.

    Attempts and probes of the core's own, which are among the agent's processes without being under its filters, are
    left out. Another's that is on its way in or out may look wrong for some milliseconds: look twice. At most 512
    threads are looked at. Without a cgroup of its own, only what has the agent's user id, if that is its alone.
    """
    own = set(owned.get(box.uid, ())) if box.uid != os.geteuid() else set()
    inside = {int(word) for word in _text(f"{box.cgroup}/cgroup.procs").split()} if box.cgroup else own
    found = [
        f"process {pid} of its user is outside its cgroup"
        for pid in sorted(own - inside)
        if _lives(pid) and _is_stray(pid, launched) and not _is_ours(pid, box)
    ]
    left = _THREADS
    for pid in sorted(inside):
        if left <= 0:
            break
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it has ended
            if pid not in own and Path(f"/proc/{pid}").stat().st_uid != box.uid and _lives(pid):
                wrong = [f"process {pid} of user {Path(f'/proc/{pid}').stat().st_uid} is in its cgroup"]
            else:
                wrong = list(_wrong(pid, launched, left))
            if wrong and not _is_ours(pid, box):
                found.extend(wrong)
            left -= len(os.listdir(f"/proc/{pid}/task"))  # noqa: PTH208 - names are wanted
    return tuple(found[:_TOLD])


def owners() -> dict[int, tuple[int, ...]]:
    """User id → its processes on the host, in one pass over /proc."""
    found: dict[int, list[int]] = {}
    with os.scandir("/proc") as entries:
        for entry in entries:
            if entry.name.isdigit():
                with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                    found.setdefault(entry.stat().st_uid, []).append(int(entry.name))
    return {uid: tuple(pids) for uid, pids in found.items()}


def _wrong(pid: int, launched: Integrity, most: int) -> Iterator[str]:
    here = _namespaces(f"/proc/{pid}")
    for name, was, is_ in zip(_NAMESPACES, launched.namespaces, here, strict=True):
        if was != is_:
            yield f"process {pid} is in another {name} namespace"
    for thread in os.listdir(f"/proc/{pid}/task")[:most]:  # noqa: PTH208
        status = _status(f"/proc/{pid}/task/{thread}/status")
        if status.get("State", "").startswith(("Z", "X")):
            continue
        if status.get("Seccomp") != launched.seccomp or int(status.get("Seccomp_filters", "0")) < launched.filters:
            yield f"thread {thread} has {status.get('Seccomp_filters', 'no')} filters, not {launched.filters} or more"
        if status.get("NoNewPrivs") != launched.no_new_privs:
            yield f"thread {thread} may gain privileges"


def _is_stray(pid: int, launched: Integrity) -> bool:
    """In the agent's user namespace or in ours. Another core of this host may have given the same user id to an agent
    of its own, which is in a third; and an instance that is being made is in the core's own group.
    """
    try:
        owner = os.readlink(f"/proc/{pid}/ns/user")  # noqa: PTH115 - a hot path
        here = next((line[3:] for line in _text(f"/proc/{pid}/cgroup").splitlines() if line.startswith("0::")), "")
        ours = os.readlink("/proc/self/ns/user")  # noqa: PTH115
    except (FileNotFoundError, ProcessLookupError):
        return False  # it has ended
    group = launched.cgroup.rpartition("/")[0]
    return owner in {launched.namespaces[0], ours} and not (group and here.startswith(f"{group}/"))


def _is_ours(pid: int, box: Sandbox) -> bool:
    """Its parents lead to this process, and not by way of the shim or of the sandbox's first process: a helper made it.
    Nothing of the agent's can have such parents.
    """
    with contextlib.suppress(FileNotFoundError, ProcessLookupError, KeyError):
        for _ in range(_GENERATIONS):
            if pid in (0, box.pid, box.shim_pid):  # the first process too: without its shim it is adopted by the zygote
                return False
            pid = int(_status(f"/proc/{pid}/status")["PPid"])
            if pid == os.getpid():
                return True
    return False


def _lives(pid: int) -> bool:
    try:
        return _text(f"/proc/{pid}/stat").rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError, IndexError):
        return False


def _namespaces(root: str) -> tuple[str, ...]:
    return tuple(os.readlink(f"{root}/ns/{name}") for name in _NAMESPACES)  # noqa: PTH115 - a hot path


def _status(path: str) -> dict[str, str]:
    return dict(line.split(":\t", 1) for line in _text(path).splitlines() if ":\t" in line)


def _mounts(text: str) -> str:
    """A digest of where what is mounted and how; the ladder's own covers, which come and go, are left out.

    A file of the host's that was replaced since, as an update does, is mounted as it was: the kernel only says of it
    that it is deleted, and no path can end like that.
    """
    kept = []
    for line in text.splitlines():
        before, _, after = line.partition(" - ")
        if after.split(" ")[1:2] != [_OURS]:
            device, root, path, options = before.split(" ")[2:6]
            kept.append(f"{device} {root.removesuffix(_DELETED)} {path} {options} {after}")
    return hashlib.sha256("\n".join(sorted(kept)).encode()).hexdigest()[:32]


def _text(path: str) -> str:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        parts = []
        size = 0
        while size < _BYTES and (part := os.read(descriptor, 1 << 16)):
            parts.append(part)
            size += len(part)
        return b"".join(parts).decode("utf-8", "backslashreplace")
    finally:
        os.close(descriptor)
