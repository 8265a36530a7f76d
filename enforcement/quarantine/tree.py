"""The processes of a sandbox, as the kernel lists them at this moment."""

from __future__ import annotations

import errno
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from clawback.enforcement.sandbox.record import Sandbox

__all__ = [
    "HEADLESS",
    "Reading",
    "Status",
    "ancestry",
    "gone",
    "kernel_worker",
    "names",
    "process_folder",
    "processes",
    "read",
    "reading",
    "start_ticks",
    "status",
    "strays",
    "threads",
    "until",
    "write",
]


HEADLESS = "H"
_USER_WORKER = 0x4000
_STOP_BIT = 1 << (signal.SIGSTOP - 1)


@dataclass(frozen=True, slots=True)
class Status:
    """Of one thread. `state` is the letter of /proc/TID/stat; `filters` counts its seccomp filters."""

    state: str
    filters: int
    no_new_privs: bool
    seccomp: int
    stop_pending: bool


def read(path: str, *, dir_fd: int | None = None, limit: int = 1 << 20) -> str:
    """A small kernel file's text. `FileNotFoundError` where it is not there, or is a cgroup's that is being removed."""
    parts = []
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC, dir_fd=dir_fd)
        try:
            while limit > 0 and (part := os.read(descriptor, min(limit, 1 << 16))):
                parts.append(part)
                limit -= len(part)
        finally:
            os.close(descriptor)
    except OSError as error:
        if error.errno == errno.ENODEV:
            raise FileNotFoundError(errno.ENOENT, "the cgroup is gone", path) from None
        raise
    return b"".join(parts).decode("utf-8", "backslashreplace")


def write(path: str, value: str) -> None:
    """Write a kernel file. `FileNotFoundError` where it is not there, or is a cgroup's that is being removed."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(descriptor, value.encode())
        finally:
            os.close(descriptor)
    except OSError as error:
        if error.errno == errno.ENODEV:
            raise FileNotFoundError(errno.ENOENT, "the cgroup is gone", path) from None
        raise


def names(folder: str) -> list[str]:
    """What a folder holds. `FileNotFoundError` or `ProcessLookupError` where it is gone."""
    return os.listdir(folder)  # noqa: PTH208 - names are wanted, at a tenth of the cost of paths


def start_ticks(pid: int | str, *, dir_fd: int | None = None) -> int:
    """Field 22 of /proc/PID/stat; `ProcessLookupError` where it is gone.

    The command's name may hold anything: fields are counted after its last bracket.
    """
    try:
        text = read("stat", dir_fd=dir_fd) if dir_fd is not None else read(f"/proc/{pid}/stat")
    except FileNotFoundError:
        raise ProcessLookupError(errno.ESRCH, f"process {pid} is gone") from None
    return int(text.rpartition(")")[2].split()[19])


@contextmanager
def process_folder(box: Sandbox) -> Iterator[int]:
    """/proc/PID of the sandbox's first process, opened: whatever is reached through it is that process's own, even if
    the number is reused meanwhile. `ProcessLookupError` where the process is gone or is another.
    """
    try:
        folder = os.open(f"/proc/{box.pid}", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        raise ProcessLookupError(errno.ESRCH, f"process {box.pid} of {box.instance} is gone") from None
    try:
        if start_ticks(box.pid, dir_fd=folder) != box.start_ticks:
            raise ProcessLookupError(
                errno.ESRCH, f"process {box.pid} is another than {box.instance}'s: its number was reused"
            )
        yield folder
    finally:
        os.close(folder)


def processes(box: Sandbox) -> tuple[int, ...]:
    """Ids of all processes of the sandbox, zombies left out: its cgroup's, or else the descendants of its first one."""
    if not box.cgroup:
        return tuple(ancestry(box))
    return tuple(sorted(_listed(box.cgroup, "cgroup.procs")))


def threads(box: Sandbox) -> tuple[int, ...]:
    """The same for threads."""
    if box.cgroup:
        return tuple(sorted(_listed(box.cgroup, "cgroup.threads")))
    found: list[int] = []
    for pid in ancestry(box):
        try:
            found.extend(int(name) for name in names(f"/proc/{pid}/task"))
        except (FileNotFoundError, ProcessLookupError):
            continue  # ended while we looked
    return tuple(sorted(found))


def strays(box: Sandbox) -> tuple[int, ...]:
    """Descendants of the first process that are not in the sandbox's cgroup: nothing inside can leave it by itself."""
    inside = _listed(box.cgroup, "cgroup.procs")
    found: list[int] = []
    queue = [box.pid]
    while queue:
        pid = queue.pop()
        try:
            for tid in names(f"/proc/{pid}/task"):
                queue.extend(int(child) for child in read(f"/proc/{pid}/task/{tid}/children").split())
            if pid not in inside and status(pid).state not in {"Z", "X"}:
                found.append(pid)
        except (FileNotFoundError, ProcessLookupError):
            continue  # ended while we looked
    return tuple(sorted(found))


@dataclass(frozen=True, slots=True)
class Reading:
    """One look at a tree by parent ids: process → state of its first thread, zombies included; `HEADLESS` where that
    has exited and others live on.
    """

    states: dict[int, str]


def reading(box: Sandbox) -> Reading:
    """The first process and all that descend from it; nothing can leave: orphans go to the first."""
    try:
        if start_ticks(box.pid) != box.start_ticks:
            return Reading({})
    except ProcessLookupError:
        return Reading({})
    children: dict[int, list[int]] = {}
    states: dict[int, str] = {}
    for name in names("/proc"):
        if not name.isdigit():
            continue
        try:
            fields = read(f"/proc/{name}/stat").rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        children.setdefault(int(fields[1]), []).append(int(name))
        # A first thread that has exited is a zombie while other threads live on: field 20 counts them.
        states[int(name)] = HEADLESS if fields[0] == "Z" and int(fields[17]) > 1 else fields[0]
    found: dict[int, str] = {}
    queue = [box.pid]
    while queue:
        pid = queue.pop()
        queue.extend(children.get(pid, ()))
        if pid in states:
            found[pid] = states[pid]
    return Reading(found)


def ancestry(box: Sandbox) -> list[int]:
    """The living ones of a reading. It may miss what forks meanwhile."""
    return [pid for pid, state in reading(box).states.items() if state not in {"Z", "X"}]


def gone(box: Sandbox) -> bool:
    """No process of the sandbox runs any more (a zombie waiting for the shim does not run)."""
    if box.cgroup:
        try:
            return "populated 0" in read(f"{box.cgroup}/cgroup.events")
        except FileNotFoundError:
            return True  # the kernel removes no cgroup that has a process
    return not ancestry(box)


def status(tid: int) -> Status:
    """Of one thread. `FileNotFoundError` or `ProcessLookupError` where it is gone."""
    values = {}
    for line in read(f"/proc/{tid}/status").splitlines():
        name, _, value = line.partition(":")
        values[name] = value.strip()
    return Status(
        state=values.get("State", "?")[:1],
        filters=int(values.get("Seccomp_filters", "0")),
        no_new_privs=values.get("NoNewPrivs") == "1",
        seccomp=int(values.get("Seccomp", "0")),
        stop_pending=bool((int(values.get("SigPnd", "0"), 16) | int(values.get("ShdPnd", "0"), 16)) & _STOP_BIT),
    )


def kernel_worker(tid: int) -> bool:
    """Whether a thread listed among a process's never runs its program, but works for it inside the kernel (io_uring).

    By field 9 of stat, include/linux/sched.h: PF_USER_WORKER; its name would be the agent's to choose.
    """
    return bool(int(read(f"/proc/{tid}/stat").rpartition(")")[2].split()[6]) & _USER_WORKER)


def until(seconds: float, *, least: int = 1) -> Iterator[None]:
    """Turns of a bounded wait: the first ones at once, then with pauses of 0.1 ms and more.

    `least` of them in any case, however slow the machine is at that moment.
    """
    end = time.monotonic() + seconds
    turn = 0
    while turn < least or time.monotonic() < end:
        yield
        turn += 1
        if turn > 50:
            time.sleep(min(0.0001 * (turn - 50), 0.005))


def _listed(cgroup: str, name: str) -> set[int]:
    """A cgroup's and its descendants'; the kernel's list may hold doubles."""
    try:
        found = {int(line) for line in read(f"{cgroup}/{name}").split()}
        if "nr_descendants 0" not in read(f"{cgroup}/cgroup.stat"):
            for entry in os.scandir(cgroup):
                if entry.is_dir(follow_symlinks=False):
                    found |= _listed(entry.path, name)
    except FileNotFoundError:
        return set()
    return found
