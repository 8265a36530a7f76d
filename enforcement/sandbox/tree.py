"""The file tree an agent sees: read-only system, private /tmp, /dev, /run/secrets and /proc, and the listed paths."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

from clawback.enforcement.kernel import mounts
from clawback.enforcement.sandbox.interpreter import BASE

__all__ = [
    "DEVICES",
    "ETC_BINDS",
    "SECRETS",
    "attach",
    "build",
    "close",
    "open_base",
    "place_canaries",
    "put_secrets",
]

SECRETS = "/run/secrets"
READABLE = (
    *(path for path in BASE if not os.path.islink(path)),
    "/etc",
    "/proc",
    "/dev",
    "/sys",
    "/tmp",
    "/var",
    SECRETS,
)
"""What Landlock lets every agent read; the root itself is not in it."""

DEVICES = ("null", "zero", "full", "random", "urandom")
ETC_BINDS = ("ld.so.cache", "ssl", "ca-certificates", "alternatives", "localtime", "pki", "crypto-policies")

_MASKED = (
    "/proc/acpi", "/proc/kcore", "/proc/keys", "/proc/key-users", "/proc/kmsg", "/proc/kpagecount", "/proc/kpageflags",
    "/proc/latency_stats", "/proc/sched_debug", "/proc/scsi", "/proc/sysrq-trigger", "/proc/timer_list",
    "/proc/timer_stats", "/proc/vmallocinfo", "/proc/modules", "/proc/kallsyms", "/proc/config.gz", "/proc/interrupts",
)  # fmt: skip
_READ_ONLY = ("/proc/sys", "/proc/bus", "/proc/fs", "/proc/irq")

_FILES = {
    "passwd": "root:x:0:0:root:/nonexistent:/bin/false\nagent:x:1000:1000:agent:/tmp:/bin/sh\n"
    "nobody:x:65534:65534:nobody:/nonexistent:/bin/false\n",
    "group": "root:x:0:\nagent:x:1000:\nnogroup:x:65534:\n",
    "hosts": "127.0.0.1 localhost\n::1 localhost\n",
    "nsswitch.conf": "passwd: files\ngroup: files\nhosts: files\nservices: files\nprotocols: files\n",
}


def base_paths() -> list[tuple[str, int]]:
    """(path, mount flags) of what every sandbox shows of the host, as far as it is there and no symbolic link."""
    read_only = mounts.MS_RDONLY | mounts.MS_NOSUID | mounts.MS_NODEV
    device = mounts.MS_NOSUID | mounts.MS_NOEXEC
    found = [(path, read_only) for path in BASE if os.path.isdir(path) and not os.path.islink(path)]
    found += [(f"/etc/{name}", read_only) for name in ETC_BINDS if os.path.exists(f"/etc/{name}")]
    found += [(f"/dev/{name}", device) for name in DEVICES]
    return found


def open_base() -> list[tuple[str, int]]:
    """(path, detached mount descriptor) of each base path. Needs the right to mount in this namespace."""
    return [(path, mounts.detached(path, flags=flags)) for path, flags in base_paths()]


def _under(root: str, path: str) -> str:
    return root + path


def _mount_point(root: str, path: str, *, folder: bool) -> str:
    target = root + path
    if folder:
        os.makedirs(target, exist_ok=True)
    elif not os.path.lexists(target):
        os.makedirs(os.path.dirname(target), exist_ok=True)
        os.close(os.open(target, os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644))
    return target


def attach(root: str, trees: Sequence[tuple[str, int]]) -> None:
    """Put detached mounts in place, outer ones first, so that one may lie inside another; closes the descriptors."""
    for path, fd in sorted(trees):
        target = _mount_point(root, path, folder=mounts.is_folder(fd))
        mounts.attach(fd, target)
        os.close(fd)


def build(root: str, base: Sequence[tuple[str, int]]) -> None:
    """Lay out the tree at `root`, an existing folder outside: a new tmpfs with everything that is the same for all."""
    mounts.tmpfs(root, size="8m")
    for folder in ("proc", "sys", "tmp", "dev", "dev/shm", "etc", "run", "run/secrets", "var", "var/tmp"):
        os.mkdir(f"{root}/{folder}")
    for path in BASE:
        if os.path.islink(path):
            os.symlink(os.readlink(path), root + path)
    for name, text in _FILES.items():
        with open(f"{root}/etc/{name}", "w", encoding="utf-8") as file:
            file.write(text)
    attach(root, base)
    for name, goal in {"fd": "", "stdin": "/0", "stdout": "/1", "stderr": "/2"}.items():
        os.symlink(f"/proc/self/fd{goal}", f"{root}/dev/{name}")
    mounts.tmpfs(f"{root}/dev/shm", mode=0o1777, size="64m", flags=mounts.MS_NOEXEC)
    mounts.proc(f"{root}/proc")
    for path in _MASKED:
        if os.path.exists(root + path):
            mounts.mask(root + path, null=f"{root}/dev/null")
    for path in _READ_ONLY:
        if os.path.isdir(root + path):
            mounts.bind_read_only(root + path)
    mounts.tmpfs(root + SECRETS, mode=0o500, size="1m", inodes=256, flags=mounts.MS_NOEXEC)
    mounts.tmpfs(f"{root}/tmp", mode=0o1777, size="256m", inodes=65536)


def put_secrets(root: str, secrets: Mapping[str, str]) -> None:
    """Write the secrets into their file system, which is in memory, then close it to writing."""
    target = root + SECRETS
    for name, value in secrets.items():
        fd = os.open(f"{target}/{name}", os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o400)
        try:
            os.write(fd, value.encode())
        finally:
            os.close(fd)
    mounts.remount_read_only(target, flags=mounts.MS_NOSUID | mounts.MS_NODEV | mounts.MS_NOEXEC)


def place_canaries(root: str, paths: Sequence[str]) -> tuple[str, ...]:
    """Empty readable files that nobody has a reason to open, each on a tmpfs. Returns those that could be placed.

    A path inside a folder of the host is left out: nothing is ever created on the host's disks.
    """
    placed = []
    own = os.stat(root or "/").st_dev
    for path in paths:
        folder = os.path.dirname(root + path)
        existing = folder
        while not os.path.isdir(existing):
            existing = os.path.dirname(existing)
        if os.stat(existing).st_dev != own or os.path.lexists(root + path):
            continue
        os.makedirs(folder, exist_ok=True)
        os.close(os.open(root + path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o444))
        placed.append(path)
    return tuple(placed)


def bait(canaries: Sequence[str]) -> tuple[str, ...]:
    """What must be readable for decoys to be found: themselves and the folders they lie in."""
    return tuple(dict.fromkeys(name for path in canaries for name in (os.path.dirname(path), path)))


def close(root: str, *, tmp_writable: bool) -> None:
    """Make all that is the sandbox's own read-only, but /tmp as asked."""
    if not tmp_writable:
        mounts.remount_read_only(f"{root}/tmp")
    mounts.remount_read_only(root or "/")
