"""Signal every process of a sandbox's pid namespace at once: what forks while it is done cannot slip through.

`kill(-1)` walks all processes under one lock, and a fork that is under way when its parent has a signal waiting is made
again after it. From outside one would chase process ids, and an agent that forks and exits outruns that. For sandboxes
without a cgroup. Runs in a process of its own with one thread, as joining namespaces needs.
"""

from __future__ import annotations

import os
import signal
from typing import Any

from clawback.enforcement.kernel import libc
from clawback.enforcement.quarantine import tree
from clawback.enforcement.sandbox.record import Sandbox

__all__ = ["run"]


def run(*, box: dict[str, Any], number: int) -> dict[str, bool]:
    """Send signal `number` to all but the first process (which `kill(-1)` leaves out); `none` if there was no other."""
    with tree.process_folder(Sandbox(**box)) as folder:
        spaces = {kind: os.open(f"ns/{kind}", os.O_RDONLY | os.O_CLOEXEC, dir_fd=folder) for kind in ("user", "pid")}
    if os.geteuid() != 0:
        libc.setns(spaces["user"], libc.CLONE_NEWUSER)
    libc.setns(spaces["pid"], libc.CLONE_NEWPID)
    child = os.fork()  # only a child is inside a pid namespace
    if child == 0:
        status = 0
        try:
            os.kill(-1, signal.Signals(number))
        except ProcessLookupError:
            status = 1
        finally:
            os._exit(status)
    return {"none": os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 1}
