"""One response at a time holds an agent: a lease in the journal, taken over only from an owner that is dead.

An owner is a process: its pid and when that pid started, on a host, in one boot of it. A live owner is never robbed,
however long it takes; another host's owner cannot be looked at, so it is taken for alive.
"""

from __future__ import annotations

import os
import secrets
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import delete, insert, select

from clawback.errors import Refused
from clawback.journal.schema import locks
from clawback.journal.store import Store

__all__ = ["hold_lock", "lock_owner"]

_POLL_SECONDS = 0.02


def _started(pid: int) -> int:
    """Clock ticks from boot to the process's start; 0 when there is no such process, or only its remains."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return 0 if fields[0] in "ZX" else int(fields[19])


def _boot() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


@contextmanager
def hold_lock(journal: Store, agent: str, timeout: float) -> Iterator[None]:
    """Hold the agent's lock. `Refused` when its owner lives and does not let go within `timeout` seconds."""
    token, deadline = secrets.token_hex(8), time.monotonic() + timeout
    while (owner := _take(journal, agent, token)) is not None:
        if time.monotonic() >= deadline:
            raise Refused(
                f"another response (process {owner}) is working on {agent}", hint="wait for it, or see its incident"
            )
        time.sleep(_POLL_SECONDS)
    try:
        yield
    finally:
        with journal.writing() as connection:
            connection.execute(delete(locks).where(locks.c.agent == agent, locks.c.token == token))


def _take(journal: Store, agent: str, token: str) -> int | None:
    """None when the lock is ours now, else the pid of whoever has it."""
    host, boot, pid = socket.gethostname(), _boot(), os.getpid()
    with journal.reading() as connection:  # most waits end here, without asking for the write lock
        row = connection.execute(select(locks).where(locks.c.agent == agent)).one_or_none()
    if row is not None and _alive(row, host, boot):
        return int(row.pid)
    with journal.writing() as connection:
        row = connection.execute(select(locks).where(locks.c.agent == agent)).one_or_none()
        if row is not None:
            if _alive(row, host, boot):
                return int(row.pid)
            connection.execute(delete(locks).where(locks.c.agent == agent))
        connection.execute(
            insert(locks).values(
                agent=agent, token=token, host=host, boot=boot, pid=pid, started=_started(pid), taken_ns=time.time_ns()
            )
        )
    return None


def _alive(owner: Any, host: str, boot: str) -> bool:
    if owner.host != host:
        return True
    return bool(owner.boot == boot and _started(owner.pid) == owner.started)


def lock_owner(journal: Store, agent: str) -> int:
    """The pid of the live process that works on the agent now; 0 for none."""
    with journal.reading() as connection:
        row = connection.execute(select(locks).where(locks.c.agent == agent)).one_or_none()
    return int(row.pid) if row is not None and _alive(row, socket.gethostname(), _boot()) else 0
