"""Control groups: find the hierarchies (v2, v1 or both), make a leaf in each, set limits, and take it away again."""

from __future__ import annotations

import contextlib
import errno
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

__all__ = [
    "Hierarchies",
    "Leaf",
    "aside",
    "discover",
    "is_frozen",
    "make_leaf",
    "processes",
    "remove_leaf",
    "remove_parent",
    "set_limits",
    "step_aside",
]

_WANTED_V1 = ("pids", "memory", "cpu")
_CPU_PERIOD = 100_000


@dataclass(frozen=True, slots=True)
class Hierarchies:
    """Where cgroups are mounted. `unified` is the v2 root, empty where there is none; `v1` is controller → root;
    `services` the v1 hierarchy without a controller by which systemd tells services apart, on a hybrid host.
    """

    unified: str = ""
    v1: dict[str, str] = field(default_factory=dict)
    services: str = ""


@dataclass(frozen=True, slots=True)
class Leaf:
    """One sandbox's groups: absolute v2 path (empty without v2), and controller → absolute v1 path."""

    unified: str = ""
    controllers: dict[str, str] = field(default_factory=dict)


def discover(mountinfo: str = "/proc/self/mountinfo") -> Hierarchies:
    """Read the mounts; a hybrid host has v2 beside v1 controllers (v2 may then hold none)."""
    unified = services = ""
    v1: dict[str, str] = {}
    for line in Path(mountinfo).read_text().splitlines():
        before, _, after = line.partition(" - ")
        kind, _, options = after.split(" ", 2)
        point = before.split(" ")[4]
        if kind == "cgroup2" and not unified:
            unified = point
        elif kind == "cgroup" and "name=systemd" in options.split(","):
            services = services or point
        elif kind == "cgroup":
            for controller in _WANTED_V1:
                if controller in options.split(",") and controller not in v1:
                    v1[controller] = point
    return Hierarchies(unified, v1, services)


def _enable_controllers(group: Path) -> None:
    """Hand the v2 controllers that exist down to a group's children; those taken by v1 are not listed."""
    available = (group / "cgroup.controllers").read_text().split()
    wanted = [f"+{name}" for name in _WANTED_V1 if name in available]
    if wanted:
        # EBUSY: the group itself holds processes (v2 allows no inner processes); limits then show as not enforced.
        with contextlib.suppress(OSError):
            (group / "cgroup.subtree_control").write_text(" ".join(wanted))


def make_leaf(hierarchies: Hierarchies, parent: str, name: str) -> Leaf:
    """Make `ROOT/parent/name` in every hierarchy where groups are ours to make; the others are left out of the leaf."""
    unified = ""
    controllers: dict[str, str] = {}
    if hierarchies.unified:
        root = Path(hierarchies.unified)
        group = root / parent
        with _left_out():
            if not group.is_dir():
                _enable_controllers(root)
                group.mkdir(exist_ok=True)
                _enable_controllers(group)
            (group / name).mkdir()
            unified = str(group / name)
    for controller, point in hierarchies.v1.items():
        leaf = Path(point) / parent / name
        with _left_out():
            leaf.mkdir(parents=True)
            controllers[controller] = str(leaf)
    return Leaf(unified, controllers)


def aside(parent: str) -> str:
    """The group, beside that of the sandboxes, of the processes that keep them."""
    return f"{parent}-shims"


def step_aside(hierarchies: Hierarchies, parent: str) -> None:
    """Move this process to `aside(parent)` wherever it may: out of whatever group its starter's end would end."""
    for root, file in (
        (hierarchies.unified, "cgroup.procs"),
        *((point, "tasks") for point in (*hierarchies.v1.values(), hierarchies.services)),
    ):
        if root:
            with _left_out():
                group = Path(root, aside(parent))
                group.mkdir(exist_ok=True)
                (group / file).write_text("0")


@contextlib.contextmanager
def _left_out() -> Iterator[None]:
    """Pass over a hierarchy without delegation, or mounted read-only: what is missing is seen in the leaf."""
    try:
        yield
    except OSError as error:
        if error.errno not in {errno.EACCES, errno.EPERM, errno.EROFS}:
            raise


def _write(folder: str, file: str, value: str) -> bool:
    try:
        fd = os.open(f"{folder}/{file}", os.O_WRONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        os.write(fd, value.encode())
    except OSError:
        return False
    finally:
        os.close(fd)
    return True


def set_limits(
    leaf: Leaf, *, memory: int | None = None, cpu: float | None = None, processes: int | None = None
) -> dict[str, bool]:
    """Set limits (bytes, cores, count) wherever the controller is. Says of each whether it reads back."""
    done: dict[str, bool] = {}
    v1 = leaf.controllers
    if processes is not None:
        folder = v1.get("pids", leaf.unified)
        done["pids"] = (
            bool(folder) and _write(folder, "pids.max", str(processes)) and _reads(folder, "pids.max", processes)
        )
    if memory is not None:
        if "memory" in v1:
            ok = _write(v1["memory"], "memory.limit_in_bytes", str(memory))
            # Swap would let it grow past the limit; the file is absent where swap is not accounted.
            _write(v1["memory"], "memory.memsw.limit_in_bytes", str(memory))
            done["memory"] = ok and _reads(v1["memory"], "memory.limit_in_bytes", memory)
        elif leaf.unified:
            ok = _write(leaf.unified, "memory.max", str(memory))
            _write(leaf.unified, "memory.swap.max", "0")
            _write(leaf.unified, "memory.oom.group", "1")
            done["memory"] = ok and _reads(leaf.unified, "memory.max", memory)
        else:
            done["memory"] = False
    if cpu is not None:
        quota = max(1000, int(cpu * _CPU_PERIOD))
        if "cpu" in v1:
            ok = _write(v1["cpu"], "cpu.cfs_period_us", str(_CPU_PERIOD))
            done["cpu"] = ok and _write(v1["cpu"], "cpu.cfs_quota_us", str(quota))
        else:
            done["cpu"] = bool(leaf.unified) and _write(leaf.unified, "cpu.max", f"{quota} {_CPU_PERIOD}")
    return done


def _reads(folder: str, file: str, value: int) -> bool:
    """Memory is kept in pages: what reads back may be up to one page less."""
    text = Path(folder, file).read_text().strip()
    return text.isdigit() and 0 <= value - int(text) < os.sysconf("SC_PAGE_SIZE")


def processes(group: str) -> tuple[int, ...]:
    """Pids in a group; empty where the group is gone."""
    try:
        return tuple(int(line) for line in Path(group, "cgroup.procs").read_text().split())
    except FileNotFoundError:
        return ()
    except OSError as error:
        if error.errno == errno.ENODEV:
            return ()
        raise


def is_frozen(group: str) -> bool:
    """Whether a v2 group is, or is being, frozen."""
    try:
        return Path(group, "cgroup.freeze").read_text().strip() == "1"
    except (FileNotFoundError, NotADirectoryError):
        return False


def remove_leaf(leaf: Leaf, *, kill: bool = True, timeout: float = 2.0) -> bool:
    """Remove a leaf everywhere, ending what is still in it. True when nothing of it is left."""
    groups = [group for group in (leaf.unified, *leaf.controllers.values()) if group]
    if kill and leaf.unified and processes(leaf.unified):
        _write(leaf.unified, "cgroup.kill", "1")
    deadline = time.monotonic() + timeout
    while True:
        for group in groups:
            # EBUSY: a process in it is dead and not yet reaped.
            with contextlib.suppress(OSError):
                Path(group).rmdir()
        if not any(Path(group).is_dir() for group in groups):
            return True
        if time.monotonic() > deadline:
            return False
        time.sleep(0.002)


def remove_parent(hierarchies: Hierarchies, parent: str, *, timeout: float = 1.0) -> bool:
    """Remove the group that leaves lay under, and `aside`, once the last is gone. False where one is still in use."""
    roots = [Path(root) for root in (hierarchies.unified, *hierarchies.v1.values(), hierarchies.services) if root]
    groups = [root / name for root in roots for name in (parent, aside(parent))]
    deadline = time.monotonic() + timeout
    while True:
        for group in groups:
            with contextlib.suppress(OSError):
                group.rmdir()
        left = [group for group in groups if group.is_dir()]
        if not left:
            return True
        # A shim in `aside` is not one that stays, unless its agent does.
        in_use = any(processes(str(leaf)) for group in left for leaf in group.iterdir() if leaf.is_dir())
        if in_use or time.monotonic() > deadline:
            return False
        time.sleep(0.005)
