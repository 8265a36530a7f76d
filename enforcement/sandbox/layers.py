"""What is seen to hold of each protection, read from outside before the command's first instruction."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from clawback.enforcement.kernel import namespaces
from clawback.enforcement.kernel.cgroups import Leaf
from clawback.model import Enforcement

__all__ = ["observe", "status_of"]

FULL, PARTIAL, NONE = Enforcement.FULL, Enforcement.PARTIAL, Enforcement.NONE


def status_of(pid: int) -> dict[str, str]:
    """/proc/PID/status as a mapping."""
    text = Path(f"/proc/{pid}/status").read_text()
    return {key: value.strip() for key, _, value in (line.partition(":") for line in text.splitlines())}


def _when(condition: object) -> Enforcement:
    return FULL if condition else NONE


def _capabilities(status: Mapping[str, str]) -> Enforcement:
    held = [name for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb") if int(status[name], 16)]
    return FULL if not held else PARTIAL if held == ["CapBnd"] else NONE


def _root_is_closed(pid: int) -> bool:
    """The mount at / is read-only and a tmpfs of the sandbox's own."""
    for line in Path(f"/proc/{pid}/mountinfo").read_text().splitlines():
        fields = line.split(" ")
        if fields[4] == "/":
            return "ro" in fields[5].split(",") and " - tmpfs " in line
    return False


def _interfaces(pid: int) -> list[str]:
    lines = Path(f"/proc/{pid}/net/dev").read_text().splitlines()[2:]
    return [line.split(":")[0].strip() for line in lines]


def _in_groups(pid: int, leaf: Leaf) -> dict[str, bool]:
    """For `unified` and each v1 controller: whether the process is in the leaf."""
    member: dict[str, bool] = {}
    for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines():
        number, controllers, path = line.split(":", 2)
        if number == "0":
            member["unified"] = bool(leaf.unified) and leaf.unified.endswith(path) and path != "/"
        for controller in controllers.split(","):
            if controller in leaf.controllers:
                member[controller] = leaf.controllers[controller].endswith(path) and path != "/"
    return member


def observe(
    pid: int, *, uid: int, leaf: Leaf, limits: Mapping[str, bool], report: Mapping[str, Any], host_uid: int
) -> dict[str, Enforcement]:
    """Each protection of the process `pid` (the init, restricted, its command not started) and how much of it holds.

    `limits` says which cgroup limits were asked for and read back; `report` is what the init saw of Landlock.
    """
    status = status_of(pid)
    own, theirs = namespaces.identities(), namespaces.identities(pid)
    seen = {f"{kind}-namespace": _when(own[kind] != theirs[kind]) for kind in own}
    uids = {int(number) for number in status["Uid"].split()}
    seen["uid"] = NONE if uids != {uid} else PARTIAL if uid == host_uid else FULL
    seen["capabilities"] = _capabilities(status)
    seen["no-new-privs"] = _when(status.get("NoNewPrivs") == "1")
    seen["seccomp"] = _when(status.get("Seccomp") == "2")
    version = int(report["landlock"])
    if version < 1 or report["landlock_files"] != "EACCES":
        seen["landlock"] = NONE
    else:
        seen["landlock"] = FULL if version >= 6 and report["landlock_net"] == "EACCES" else PARTIAL
    seen["filesystem"] = _when(_root_is_closed(pid))
    seen["network"] = _when(seen["net-namespace"] is FULL and _interfaces(pid) == ["lo"])
    member = _in_groups(pid, leaf)
    seen["cgroup"] = _when(member.get("unified"))
    for limit, read_back in limits.items():
        joined = member.get(limit, member.get("unified", False))
        seen[limit] = FULL if read_back and joined else PARTIAL if limit == "pids" else NONE
    return seen
