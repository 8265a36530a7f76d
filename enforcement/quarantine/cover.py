"""Lay an empty read-only file over every secret of an agent, or lift it off again, from within its mount namespace.

File by file: a mount over the folder would be passed by a process whose working directory is inside. Runs in a process
of its own with one thread, as joining a mount namespace needs.
"""

from __future__ import annotations

import os
import stat

from clawback.enforcement.kernel import imports, libc, mounts
from clawback.enforcement.quarantine import mounted, tree
from clawback.enforcement.sandbox.record import Sandbox

__all__ = ["SECRETS", "SOURCE", "covered", "run", "secrets"]

SECRETS = "/run/secrets"
SOURCE = "clawback-restrict"
"""What the covers are called in /proc/PID/mountinfo; nothing inside a sandbox can mount anything."""

_UMOUNT_NOFOLLOW, _MNT_DETACH = 8, 2
_MOST = 4096


def covered(box: Sandbox) -> set[str]:
    """Paths inside that a cover of ours lies on, as the kernel lists the mounts. `ProcessLookupError` if ended."""
    top = {mount.path: mount.source for mount in mounted.mounts(box)}
    return {path for path, source in top.items() if source == SOURCE}


def run(*, box: dict[str, object], lift: bool) -> dict[str, object]:
    """Cover every secret (or `lift` the covers); returns `failed`, path → errno's text."""
    sandbox = Sandbox(**box)  # type: ignore[arg-type]  # came from asdict of one, through JSON
    there = covered(sandbox)
    with tree.process_folder(sandbox) as folder:
        namespace = os.open("ns/mnt", os.O_RDONLY | os.O_CLOEXEC, dir_fd=folder)
        if os.geteuid() != 0:  # rootless: the right to mount is had inside the agent's user namespace
            owner = os.open("ns/user", os.O_RDONLY | os.O_CLOEXEC, dir_fd=folder)
            libc.setns(owner, libc.CLONE_NEWUSER)
            os.close(owner)
    wanted = sorted(there) if lift else [path for path in secrets(sandbox) if path not in there]
    covers = {} if lift else _covers(wanted)
    imports.close()
    libc.setns(namespace, libc.CLONE_NEWNS)
    failed: dict[str, object] = {}
    for path in wanted:
        try:
            if lift:
                libc.umount2(path, _UMOUNT_NOFOLLOW | _MNT_DETACH)
            else:
                mounts.attach(covers[path], path)
        except OSError as error:
            failed[path] = error.strerror
    return {"failed": failed}


def secrets(box: Sandbox) -> list[str]:
    """Paths inside of all secrets, as they lie there now."""
    root = f"/proc/{box.pid}/root"
    try:
        names = sorted(tree.names(root + SECRETS))[:_MOST]
    except FileNotFoundError:
        return []
    paths = [f"{SECRETS}/{name}" for name in names]
    return [path for path in paths if stat.S_ISREG(os.lstat(root + path).st_mode)]


def _covers(paths: list[str]) -> dict[str, int]:
    """For each path a detached mount of an empty read-only file, made where no other process sees it."""
    libc.unshare(libc.CLONE_NEWNS)
    mounts.make_private()
    flags = mounts.MS_NOSUID | mounts.MS_NODEV | mounts.MS_NOEXEC
    libc.mount(SOURCE, "/tmp", "tmpfs", flags, "size=4k,nr_inodes=2")
    os.close(os.open("/tmp/empty", os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o444))
    return {path: mounts.detached("/tmp/empty", flags=flags | mounts.MS_RDONLY) for path in paths}
