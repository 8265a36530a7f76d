"""What is seen to hold of each protection, read from outside before the command's first instruction."""

from __future__ import annotations

import errno
from collections.abc import Mapping
from typing import Any

from clawback.enforcement.kernel import namespaces
from clawback.enforcement.kernel.cgroups import Leaf
from clawback.enforcement.sandbox.files import read_text
from clawback.model import Enforcement

__all__ = ["observe_cage", "observe_restricted", "status_of"]

FULL, PARTIAL, NONE = Enforcement.FULL, Enforcement.PARTIAL, Enforcement.NONE


def status_of(pid: int) -> dict[str, str]:
    """/proc/PID/status as a mapping."""
    text = read_text(f"/proc/{pid}/status")
    return {key: value.strip() for key, _, value in (line.partition(":") for line in text.splitlines())}


def _when(condition: object) -> Enforcement:
    return FULL if condition else NONE


def _capabilities(status: Mapping[str, str]) -> Enforcement:
    held = [name for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb") if int(status[name], 16)]
    return FULL if not held else PARTIAL if held == ["CapBnd"] else NONE


def _root_is_closed(pid: int) -> bool:
    """The mount at / is read-only and a tmpfs of the sandbox's own."""
    for line in read_text(f"/proc/{pid}/mountinfo").splitlines():
        fields = line.split(" ")
        if fields[4] == "/":
            return "ro" in fields[5].split(",") and " - tmpfs " in line
    return False


def _interfaces(pid: int) -> list[str]:
    lines = read_text(f"/proc/{pid}/net/dev").splitlines()[2:]
    return [line.split(":")[0].strip() for line in lines]


def _in_groups(pid: int, leaf: Leaf) -> dict[str, bool]:
    """For `unified` and each v1 controller: whether the process is in the leaf."""
    member: dict[str, bool] = {}
    for line in read_text(f"/proc/{pid}/cgroup").splitlines():
        number, controllers, path = line.split(":", 2)
        if number == "0":
            member["unified"] = bool(leaf.unified) and leaf.unified.endswith(path) and path != "/"
        for controller in controllers.split(","):
            if controller in leaf.controllers:
                member[controller] = leaf.controllers[controller].endswith(path) and path != "/"
    return member


def observe_cage(pid: int, *, leaf: Leaf, own: Mapping[str, int]) -> dict[str, Enforcement]:
    """What holds of a sandbox before its command is known: namespaces, network, groups.

    `own` are the host's namespaces. `in-CONTROLLER` says of each group whether the process is in it; it is folded into
    the limits later.
    """
    theirs = namespaces.identities(pid)
    seen = {f"{kind}-namespace": _when(own[kind] != theirs[kind]) for kind in own}
    seen["network"] = _when(seen["net-namespace"] is FULL and _interfaces(pid) == ["lo"])
    for group, member in _in_groups(pid, leaf).items():
        seen[f"in-{group}"] = _when(member)
    return seen


def observe_restricted(
    pid: int,
    *,
    uid: int,
    limits: Mapping[str, bool],
    report: Mapping[str, Any],
    host_uid: int,
    cage: Mapping[str, Enforcement],
) -> dict[str, Enforcement]:
    """All layers of the process `pid` (the init, restricted, its command not started) and how much of each holds.

    `limits` says which cgroup limits were asked for and read back; `report` is what the init saw of Landlock: the errno
    numbers of opening the root and of connecting to a port that no rule names, and `landlock`, its ABI.
    """
    status = status_of(pid)
    seen = {name: value for name, value in cage.items() if not name.startswith("in-")}
    uids = {int(number) for number in status["Uid"].split()}
    seen["uid"] = NONE if uids != {uid} else PARTIAL if uid == host_uid else FULL
    seen["capabilities"] = _capabilities(status)
    seen["no-new-privs"] = _when(status.get("NoNewPrivs") == "1")
    seen["seccomp"] = _when(status.get("Seccomp") == "2")
    version = int(report["landlock"])
    if version < 1 or report["root"] != errno.EACCES:
        seen["landlock"] = NONE
    else:
        seen["landlock"] = FULL if version >= 6 and report["port"] == errno.EACCES else PARTIAL
    seen["filesystem"] = _when(_root_is_closed(pid))
    unified = cage.get("in-unified", NONE)
    seen["cgroup"] = unified
    for limit, read_back in limits.items():
        joined = cage.get(f"in-{limit}", unified)
        # The process limit is set as a resource limit too.
        seen[limit] = FULL if read_back and joined is FULL else PARTIAL if limit == "pids" else NONE
    return seen
