"""What a sandbox is: the recipe of the cage made before its command is known, and of the rest that comes with that.

Nothing else in Clawback knows this; both shims only follow.
"""

from __future__ import annotations

import os
import resource
from collections.abc import Mapping
from functools import cache

from clawback.enforcement.kernel import capabilities, libc, mounts
from clawback.enforcement.sandbox import restrict, tree
from clawback.enforcement.sandbox.job import INSIDE_ID, Job
from clawback.enforcement.sandbox.recipe import Op, number, write
from clawback.enforcement.sandbox.record import GATEWAY_PORT

__all__ = ["NAMESPACES", "ROOT", "bound", "first_part", "maps", "second_part"]

NAMESPACES = (
    libc.CLONE_NEWUSER
    | libc.CLONE_NEWNS
    | libc.CLONE_NEWPID
    | libc.CLONE_NEWNET
    | libc.CLONE_NEWIPC
    | libc.CLONE_NEWUTS
)
"""What the first process is born into; the cgroup namespace follows once it is in its groups."""

ROOT = "/sys"
"""Where the new root is put together: a folder that every host has and that nobody wants to see inside."""

_PR_SET_PDEATHSIG = 1
_SIGKILL = 9
_BACKLOG = 512
_STDIO = 3


def maps(uid: int) -> tuple[str, str]:
    """The lines of uid_map and gid_map: an id of its own, or the caller's, and then the caller's group too."""
    gid = os.getgid() if uid == os.getuid() else uid
    return f"{INSIDE_ID} {uid} 1", f"{INSIDE_ID} {gid} 1"


@cache
def first_part(base: tuple[tree.Shown, ...], *, groups: int, mounted: bool) -> bytes:
    """All that does not depend on the command. Descriptors: `groups` open `tasks` files; then, if `mounted`, a detached
    mount for each of `base`.

    Without them the first process opens the mounts itself, and the host's tree stays until the command is known.
    """
    parts = [write(Op.JOIN, index) for index in range(groups)]
    parts += [
        write(Op.WAIT),
        # Only now: the root of a cgroup namespace is the group that the caller is in.
        write(Op.UNSHARE, libc.CLONE_NEWCGROUP),
        write(Op.BOUNDING, capabilities.SECUREBITS),
        # Capabilities over the own namespaces stay: the id left behind was not root inside. Files made from here on
        # are the agent's; an unmapped id could make none.
        write(Op.IDS, INSIDE_ID, INSIDE_ID),
        # A tree whose shim is gone would be unobserved: it ends. After the ids, whose change clears it.
        write(Op.PRCTL, _PR_SET_PDEATHSIG, _SIGKILL, 0, 0, 0),
        write(Op.HOSTNAME, "sandbox"),
        write(Op.MOUNT, "", "/", "", mounts.MS_REC | mounts.MS_PRIVATE, ""),
        write(Op.LOOPBACK),
        write(Op.LISTEN, GATEWAY_PORT, _BACKLOG),
        tree.build(ROOT, base, groups if mounted else None),
    ]
    if mounted:
        parts.append(write(Op.PIVOT, ROOT))
    parts += [restrict.begin("" if mounted else ROOT), write(Op.READY)]
    return b"".join(parts)


def _bind_flags(*, writable: bool) -> int:
    return mounts.MS_NOSUID | mounts.MS_NODEV | (0 if writable else mounts.MS_RDONLY)


def bound(job: Job) -> tuple[tree.Shown, ...]:
    """What the job shows of the host, in the order of its descriptors."""
    shown = ((path, job.sources.get(path, path), writable) for path, writable in sorted(job.binds))
    return tuple(
        (path, source, _bind_flags(writable=writable), os.path.isdir(source)) for path, source, writable in shown
    )


def second_part(
    job: Job, shown: tuple[tree.Shown, ...], secrets: Mapping[str, str], *, mounted: bool, stdio: bool
) -> bytes:
    """The rest, for the shim: whether it gets standard descriptors, then the first process's operations.

    Descriptors of the shim: the folder, `.exit.json`, `output.log` unless `stdio`, else the standard three; then, if
    `mounted`, a detached mount for each of `shown`. The first process gets the standard three, then the mounts.
    """
    root = "" if mounted else ROOT
    parts = [
        number(int(stdio)),
        tree.show(root, shown, first=_STDIO if mounted else None),
        tree.put_secrets(root, secrets),
        *(restrict.canary(root, path) for path in job.canaries),
        restrict.rules(root, job.restrictions),
        tree.close(root, tmp_writable=job.tmp_writable),
    ]
    if root:
        parts.append(write(Op.PIVOT, root))
    parts.append(write(Op.CHDIR, job.workdir))
    for name, (soft, hard) in job.limits.items():
        parts.append(write(Op.RLIMIT, getattr(resource, f"RLIMIT_{name}"), soft, hard))
    parts.append(restrict.give_up(job.restrictions, restrict.Escalating.HEARD))
    environment = [f"{name}={value}" for name, value in job.environment.items()]
    parts.append(write(Op.EXEC, job.environment["PATH"], job.command, environment))
    return b"".join(parts)
