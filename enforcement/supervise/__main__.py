"""`python -m clawback.enforcement.supervise STATE [--expiry SECONDS] [--group NAME]`: one for each state, outliving the
core, but not both the core and the last agent, nor the state folder.

Exits with 0 when told to end or needed no more, 5 where another one already supervises this state.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import os
import resource
import signal
import sys
from pathlib import Path

import structlog

from clawback import log
from clawback.enforcement.kernel import cgroups, libc
from clawback.enforcement.supervise.supervisor import LINGER_SECONDS, Supervisor
from clawback.errors import ClawbackError, Refused

_PR_SET_NAME = 15
_NICE = -10


def _only_one(path: Path) -> int:
    """The lock, held for as long as the descriptor is open."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise Refused(f"another supervisor serves {path.parent.parent}", hint="one is enough") from None
    return descriptor


def main() -> int:
    """Serve until SIGTERM."""
    options = argparse.ArgumentParser(prog="python -m clawback.enforcement.supervise")
    options.add_argument("state", type=Path)
    options.add_argument("--expiry", type=float, default=60.0, help="seconds until an unanswered question is refused")
    options.add_argument("--group", default="", help="the core's cgroup; beside it is where this process goes")
    options.add_argument(
        "--linger", type=float, default=LINGER_SECONDS, help="seconds without a core and an agent, and it ends"
    )
    chosen = options.parse_args()
    log.configure()
    libc.prctl(_PR_SET_NAME, "clawback-superv")
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    run: Path = chosen.state / "run"
    run.mkdir(parents=True, exist_ok=True)
    try:
        lock = _only_one(run / "supervisor.lock")
        if chosen.group:  # with the shims: what ends the core's own group must not end this too
            cgroups.step_aside(cgroups.discover(), chosen.group)
        with contextlib.suppress(PermissionError):  # every held call of every agent waits for this one thread
            os.setpriority(os.PRIO_PROCESS, 0, _NICE)
        supervisor = Supervisor(chosen.state, expiry_seconds=chosen.expiry, linger_seconds=chosen.linger)
    except ClawbackError as error:
        sys.stderr.write(f"error: {error.message}\nhint: {error.hint}\n")
        return error.exit_status
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # hands are reaped by the kernel: nobody waits for one that hangs
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: supervisor.stop())
    structlog.get_logger().info("supervisor up", pid=os.getpid())
    supervisor.run()
    os.close(lock)
    return 0


if __name__ == "__main__":
    sys.exit(main())
