"""Run a Python module in another network namespace.

    python -m clawback.services.within /proc/PID/ns/net MODULE ARGUMENTS…

For rehearsals, whose servers have a network of their own: the core must stay in the host's, because the kernel reports
denied system calls and process starts to that one alone.
"""

from __future__ import annotations

import os
import sys

from clawback.enforcement.kernel import libc

__all__: list[str] = []


def main(namespace: str, module: str, *arguments: str) -> None:
    """Join, then become the module."""
    handle = os.open(namespace, os.O_RDONLY | os.O_CLOEXEC)
    libc.setns(handle, libc.CLONE_NEWNET)
    os.execv(sys.executable, [sys.executable, "-m", module, *arguments])  # noqa: S606 - no shell is wanted


if __name__ == "__main__":
    main(*sys.argv[1:])
