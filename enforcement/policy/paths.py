"""Reads lists of host paths: absolute, in one spelling, and none so wide that a sandbox would hold nothing back."""

from __future__ import annotations

from clawback.enforcement.policy.nodes import Item
from clawback.enforcement.sandbox.interpreter import too_wide

__all__ = ["MOST", "NEVER_WRITABLE", "path_of", "paths"]

MOST = 256
"""Paths of one policy."""

# Writable, these would let an agent change the host or its own cage. What is below them is the author's call, except
# below `_NEVER_BENEATH`.
NEVER_WRITABLE = frozenset(
    ("/", "/bin", "/boot", "/dev", "/etc", "/home", "/lib", "/lib64", "/opt", "/proc", "/root", "/run", "/sbin", "/srv")
) | {"/sys", "/usr", "/var"}
_PRIVATE = ("/tmp", "/dev", "/run/secrets", "/proc", "/sys")  # a sandbox has these of its own
_NEVER_BENEATH = ("/boot/", "/dev/", "/proc/", "/sys/")


def paths(item: Item, *, writable: bool) -> tuple[str, ...]:
    """A list of paths to show."""
    found = []
    for entry in item.list(limit=MOST):
        path = path_of(entry)
        if path not in _PRIVATE and too_wide(path):
            raise entry.wrong(f"too wide: {path}", hint="name the folders below it that the agent needs")
        if writable and (path in NEVER_WRITABLE or path.startswith(_NEVER_BENEATH)):
            raise entry.wrong(
                f"too wide to be writable: {path}", hint="name the folder below it that the agent writes to"
            )
        found.append(path)
    return tuple(found)


def path_of(entry: Item) -> str:
    """One path."""
    path = entry.text(limit=4095)
    parts = path.split("/")
    if not path.startswith("/"):
        raise entry.wrong("the path is relative", hint="start it with /")
    if ".." in parts:
        raise entry.wrong("the path has '..'", hint="write where it leads")
    if path != "/" and ("" in parts[1:] or "." in parts):
        raise entry.wrong("the path has an empty or '.' part", hint="write it without '//', '/./' or a '/' at the end")
    if "*" in path or "?" in path:
        raise entry.wrong("paths are not patterns", hint="name the folder")
    if path == "/":
        raise entry.wrong("too wide: the whole host", hint="name the folders that the agent needs")
    return path
