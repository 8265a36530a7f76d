"""The zygote's part in a sandbox: its groups, the mounts it will show, its recipe, and the shim that follows it."""

from __future__ import annotations

import json
import os
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from clawback.enforcement.kernel import cgroups, mounts
from clawback.enforcement.sandbox import cage, tree
from clawback.enforcement.sandbox.recipe import CageHead
from clawback.enforcement.sandbox.recipe import cage as as_bytes

__all__ = ["Host", "Order", "may_mount", "prepare", "spawn"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """What is the same for every sandbox of this core. `program` is the compiled shim, open; -1 for the Python way."""

    hierarchies: cgroups.Hierarchies
    group: str
    mounts: bool  # the right to mount in the namespace outside
    program: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """A cage to be made: its recipe, the descriptors that it names (the caller's to close), and its groups."""

    recipe: bytes
    fds: tuple[int, ...]
    leaf: cgroups.Leaf


def may_mount() -> bool:
    """Seen by doing it: root in a user namespace of its own may not, in a mount namespace that is the host's."""
    try:
        os.close(mounts.detached("/dev/null", flags=mounts.MS_RDONLY))
    except PermissionError:
        return False
    return True


def prepare(host: Host, request: dict[str, Any]) -> Order:
    """Groups, mounts and recipe for this uid and name. `OSError` where one cannot be had; then nothing is left."""
    leaf = cgroups.make_leaf(host.hierarchies, host.group, request["name"])
    with ExitStack() as undo:
        undo.callback(cgroups.remove_leaf, leaf)

        def opened(fd: int) -> int:
            undo.callback(os.close, fd)
            return fd

        group = opened(os.open(leaf.unified, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)) if leaf.unified else -1
        joined = leaf.controllers.values()
        fds = [opened(os.open(f"{path}/tasks", os.O_WRONLY | os.O_CLOEXEC)) for path in joined]
        base = tree.base_paths()
        if host.mounts:
            fds += [opened(mounts.detached(source, flags=flags)) for _path, source, flags, _folder in base]
        uid_map, gid_map = cage.maps(request["uid"])
        head = CageHead(
            flags=cage.NAMESPACES,
            group=group,
            uid_map=uid_map,
            gid_map=gid_map,
            about=json.dumps({"unified": leaf.unified, "controllers": leaf.controllers}),
            leaves=tuple(path for path in (leaf.unified, *joined) if path),
            fds=tuple(fds),
        )
        recipe = as_bytes(head, cage.first_part(base, groups=len(joined), mounted=host.mounts))
        undo.pop_all()
    return Order(recipe=recipe, fds=(*fds, *([group] if group >= 0 else [])), leaf=leaf)


def spawn(host: Host, order: Order, core: int) -> int:
    """Start the compiled shim on this order; its pid."""
    recipe = os.memfd_create("clawback-recipe", os.MFD_CLOEXEC)
    try:
        os.write(recipe, order.recipe)
        # Onto itself: that takes close-on-exec off in the child alone. Whatever else is open stays behind.
        actions: list[Any] = [(os.POSIX_SPAWN_DUP2, fd, fd) for fd in (core, recipe, *order.fds)]
        actions += [(os.POSIX_SPAWN_OPEN, fd, "/dev/null", os.O_RDWR, 0) for fd in range(3)]
        # By the descriptor of the program that was looked at, whatever lies at its path by now.
        return os.posix_spawn(
            f"/proc/self/fd/{host.program}", ["clawback-shim", str(core), str(recipe)], {}, file_actions=actions
        )
    finally:
        os.close(recipe)
