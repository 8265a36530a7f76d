"""The file tree an agent sees: read-only system, private /tmp, /dev, /run/secrets and /proc, and the listed paths.

Everything here is a list of operations (see `recipe`); `root` is where the new root is put together, empty once it is
the root.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from functools import cache

from clawback.enforcement.kernel import mounts
from clawback.enforcement.sandbox.interpreter import BASE
from clawback.enforcement.sandbox.recipe import Op, write

__all__ = [
    "DEVICES",
    "ETC_BINDS",
    "READABLE",
    "SECRETS",
    "Shown",
    "bait",
    "base_paths",
    "build",
    "close",
    "put_secrets",
    "show",
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

Shown = tuple[str, str, int, bool]
"""Where a part of the host is shown, where it lies there (no link in that), mount flags, whether it is a folder."""


def base_paths() -> tuple[Shown, ...]:
    """What every sandbox shows of the host, as far as it is there and no symbolic link."""
    read_only = mounts.MS_RDONLY | mounts.MS_NOSUID | mounts.MS_NODEV
    device = mounts.MS_NOSUID | mounts.MS_NOEXEC
    found = [(path, path, read_only, True) for path in BASE if os.path.isdir(path) and not os.path.islink(path)]
    for name in ETC_BINDS:
        path = f"/etc/{name}"
        if os.path.exists(path):
            found.append((path, os.path.realpath(path), read_only, os.path.isdir(path)))
    found += [(f"/dev/{name}", f"/dev/{name}", device, False) for name in DEVICES]
    return tuple(sorted(found))


def show(root: str, shown: Sequence[Shown], *, first: int | None) -> bytes:
    """Put these in place, outer ones first, so that one may lie inside another: `shown` is sorted.

    `first` is the index of the first one's detached mount; without it the first process opens them itself.
    """
    parts = []
    for index, (path, source, flags, folder) in enumerate(shown):
        parts.append(write(Op.MKDIRS if folder else Op.TOUCH, root + path))
        if first is None:
            parts.append(write(Op.BIND, source, root + path, mounts.attributes(flags), 0))
        else:
            parts.append(write(Op.ATTACH, first + index, root + path))
    return b"".join(parts)


def _tmpfs(target: str, *, mode: int = 0o755, size: str = "1m", inodes: int = 4096, flags: int = 0) -> bytes:
    """A private file system in memory, never with devices or set-user-id programs."""
    return write(Op.MOUNT, "tmpfs", target, "tmpfs", *_small(mode=mode, size=size, inodes=inodes, flags=flags))


def _small(*, mode: int, size: str, inodes: int, flags: int) -> tuple[int, str]:
    return mounts.MS_NOSUID | mounts.MS_NODEV | flags, f"mode={mode:o},size={size},nr_inodes={inodes}"


def _remount_read_only(target: str, *, flags: int = mounts.MS_NOSUID | mounts.MS_NODEV) -> bytes:
    return write(Op.MOUNT, "", target, "", mounts.MS_REMOUNT | mounts.MS_BIND | mounts.MS_RDONLY | flags, "")


def _mask(root: str, path: str) -> bytes:
    """Hide a file behind the null device or a folder behind an empty file system."""
    flags, data = _small(mode=0o555, size="4k", inodes=2, flags=mounts.MS_RDONLY | mounts.MS_NOEXEC)
    return write(Op.MASK, root + path, f"{root}/dev/null", data, flags)


@cache
def build(root: str, base: tuple[Shown, ...], first: int | None) -> bytes:
    """Lay out the tree at `root`, an existing folder: a new tmpfs with everything that is the same for all."""
    closed = mounts.MS_NOSUID | mounts.MS_NODEV | mounts.MS_NOEXEC
    folders = ("proc", "sys", "tmp", "dev", "dev/shm", "etc", "run", "run/secrets", "var", "var/tmp")
    parts = [_tmpfs(root, size="8m"), *(write(Op.MKDIR, f"{root}/{folder}", 0o755) for folder in folders)]
    parts += [write(Op.SYMLINK, os.readlink(path), root + path) for path in BASE if os.path.islink(path)]
    parts += [write(Op.FILE, f"{root}/etc/{name}", 0o644, text.encode()) for name, text in _FILES.items()]
    parts.append(show(root, base, first=first))
    for name, goal in {"fd": "", "stdin": "/0", "stdout": "/1", "stderr": "/2"}.items():
        parts.append(write(Op.SYMLINK, f"/proc/self/fd{goal}", f"{root}/dev/{name}"))
    parts.append(_tmpfs(f"{root}/dev/shm", mode=0o1777, size="64m", flags=mounts.MS_NOEXEC))
    parts.append(write(Op.MOUNT, "proc", f"{root}/proc", "proc", closed, ""))
    parts += [_mask(root, path) for path in _MASKED]
    read_only = mounts.attributes(mounts.MS_RDONLY | closed)
    parts += [write(Op.BIND, root + path, root + path, read_only, 1) for path in _READ_ONLY]
    parts.append(_tmpfs(root + SECRETS, mode=0o500, size="1m", inodes=256, flags=mounts.MS_NOEXEC))
    parts.append(_tmpfs(f"{root}/tmp", mode=0o1777, size="256m", inodes=65536))
    return b"".join(parts)


def put_secrets(root: str, secrets: Mapping[str, str]) -> bytes:
    """Write the secrets into their file system, which is in memory, then close it to writing."""
    target = root + SECRETS
    files = [write(Op.FILE, f"{target}/{name}", 0o400, value.encode()) for name, value in secrets.items()]
    flags = mounts.MS_NOSUID | mounts.MS_NODEV | mounts.MS_NOEXEC
    return b"".join([*files, _remount_read_only(target, flags=flags)])


def bait(canaries: Sequence[str]) -> tuple[str, ...]:
    """What must be readable for decoys to be found: themselves and the folders they lie in."""
    return tuple(dict.fromkeys(name for path in canaries for name in (os.path.dirname(path), path)))


def close(root: str, *, tmp_writable: bool) -> bytes:
    """Make all that is the sandbox's own read-only, but /tmp as asked."""
    tmp = b"" if tmp_writable else _remount_read_only(f"{root}/tmp")
    return tmp + _remount_read_only(root or "/")
