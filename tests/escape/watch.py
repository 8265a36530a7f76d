"""The judge: what is looked at from outside, before and after each attempt, whatever the attempt says of itself."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable
from pathlib import Path


def ticks(pid: int) -> str:
    """When a process started; "gone" where it has ended."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return "gone"
    return "gone" if fields[0] in "ZX" else fields[19]


def text(path: Path | str) -> str:
    try:
        return Path(path).read_text()
    except OSError as error:
        return f"unreadable: {error.strerror}"


def memory(pid: int, address: int, size: int = 32) -> str:
    try:
        with Path(f"/proc/{pid}/mem").open("rb", buffering=0) as file:
            file.seek(address)
            return file.read(size).hex()
    except OSError as error:
        return f"unreadable: {error.strerror}"


class Watch:
    """Named looks. `changes` says in words what is not as it was, and takes the new state for the old one."""

    def __init__(self) -> None:
        self._looks: dict[str, Callable[[], object]] = {}
        self._last: dict[str, object] = {}

    def add(self, name: str, look: Callable[[], object]) -> None:
        self._looks[name] = look
        self._last[name] = look()

    def remove(self, name: str) -> None:
        del self._looks[name], self._last[name]

    def changes(self) -> list[str]:
        found = []
        for name, look in self._looks.items():
            now, before = look(), self._last[name]
            if now != before:
                found.append(f"{name}: was {str(before)[:100]}, is {str(now)[:100]}")
                self._last[name] = now
        return found


def the_host(watch: Watch) -> None:
    """What is the machine's."""
    watch.add("core_pattern", lambda: text("/proc/sys/kernel/core_pattern"))
    watch.add("host name", socket.gethostname)
    watch.add("domain name", lambda: text("/proc/sys/kernel/domainname"))
    watch.add("uevent_helper", lambda: text("/sys/kernel/uevent_helper"))
    watch.add("swaps", lambda: text("/proc/swaps"))
    watch.add("own priority", lambda: os.getpriority(os.PRIO_PROCESS, 0))


def _by_zygote(pid: int) -> bool:
    """Its parent is a core's zygote: a helper that looks at the agent by its user id, for some milliseconds, is such a
    child; so might one of the agent's be that got away and lost its parent.
    """
    parent = Path(f"/proc/{text(f'/proc/{pid}/stat').rpartition(')')[2].split()[1]}")
    return parent.stat().st_uid == 0 and text(parent / "comm").strip() == "clawback-zygote"


def strangers(uid: int, group: str) -> list[str]:
    """Processes of an agent's outer user id that are not in its control group, and that are no helpers of the core."""
    for _ in range(5):
        found = _strangers(uid, group)
        if not all(helper for _, helper in found) or not found:
            break
        time.sleep(0.2)
    return [one for one, _ in found]


def _strangers(uid: int, group: str) -> list[tuple[str, bool]]:
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            alive = folder.stat().st_uid == uid and ticks(int(folder.name)) != "gone"
            if alive and group not in text(folder / "cgroup"):
                found.append((f"{folder.name} {text(folder / 'comm').strip()}", _by_zygote(int(folder.name))))
        except (FileNotFoundError, ProcessLookupError, IndexError):
            continue
    return found
