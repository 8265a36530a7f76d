"""One response at a time holds an agent: a lock in the journal, with a lease, taken only from an owner that is gone.

An owner is a process: its pid and when that pid started, on a host, in one boot of it. On its own host it is seen to be
dead at once. On another it cannot be looked at: there its lease, which it renews for as long as it lives, runs out
within `LEASE_SECONDS`. One that hangs for so long, or is cut off from the journal, has lost the lock, and is told so
(`Held.lost`) before it begins anything further. Times are the database's, so hosts' clocks need not agree.
"""

from __future__ import annotations

import os
import secrets
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import structlog
from sqlalchemy import Connection, delete, insert, select, text, update

from clawback.errors import ClawbackError, Refused
from clawback.journal.schema import locks
from clawback.journal.store import Store

__all__ = ["LEASE_SECONDS", "Held", "database_ns", "hold_lock", "lock_owner", "owned"]

LEASE_SECONDS = 10.0
_RENEW_SECONDS = 2.0
_POLL_SECONDS = 0.02
_CLOCK = text("SELECT (extract(epoch FROM clock_timestamp()) * 1000000000)::bigint")

_log = structlog.get_logger()


class Held:
    """A lock that is held. `lost` once it is somebody else's, or might be."""

    def __init__(self, agent: str) -> None:
        self.agent = agent
        self.token = secrets.token_hex(8)
        self._good_until = time.monotonic() + LEASE_SECONDS
        self._taken = False

    @property
    def lost(self) -> bool:
        """Nothing further may be begun under it."""
        return self._taken or time.monotonic() >= self._good_until

    def renew(self, store: Store) -> None:
        """Hold it for another lease, if it is still ours."""
        asked = time.monotonic()
        with store.writing() as connection:
            ours = (locks.c.agent == self.agent) & (locks.c.token == self.token)
            until = database_ns(connection) + round(LEASE_SECONDS * 1e9)
            if connection.execute(update(locks).where(ours).values(until_ns=until)).rowcount:
                self._good_until = asked + LEASE_SECONDS
            else:
                self._taken = True

    def keep(self, store: Store, over: threading.Event) -> None:
        """Renew until it is over or lost."""
        while not over.wait(_RENEW_SECONDS) and not self._taken:
            try:
                self.renew(store)
            except ClawbackError as error:
                _log.warning("a lock could not be renewed", agent=self.agent, reason=error.message)


@contextmanager
def hold_lock(journal: Store, agent: str, timeout: float) -> Iterator[Held]:
    """Hold the agent's lock. `Refused` when its owner lives and does not let go within `timeout` seconds."""
    deadline = time.monotonic() + timeout
    held = Held(agent)
    owner = _take(journal, held)
    while owner is not None:
        if time.monotonic() >= deadline:
            raise Refused(
                f"another response (process {owner}) is working on {agent}", hint="wait for it, or see its incident"
            )
        time.sleep(_POLL_SECONDS)
        owner = lock_owner(journal, agent)  # most waits end here, without asking for the write lock
        if owner == 0:
            held = Held(agent)
            owner = _take(journal, held)
    over = threading.Event()
    keeper = threading.Thread(target=held.keep, args=(journal, over), name="lease", daemon=True)
    keeper.start()
    try:
        yield held
    finally:
        over.set()
        keeper.join()
        with journal.writing() as connection:
            connection.execute(delete(locks).where(locks.c.agent == agent, locks.c.token == held.token))


def lock_owner(journal: Store, agent: str) -> int:
    """The pid of the live process that works on the agent now; 0 for none."""
    with journal.glancing() as connection:
        row = connection.execute(select(locks).where(locks.c.agent == agent)).one_or_none()
        return int(row.pid) if row is not None and owned(row, database_ns(connection)) else 0


def owned(row: Any, now_ns: int) -> bool:
    """Whether a row of `locks` has an owner, by the database's time."""
    if row.until_ns <= now_ns:
        return False
    if (row.host, row.boot) == (socket.gethostname(), _here()):
        return bool(_started(row.pid) == row.started)
    # Of another life of this host nothing is left; another's processes cannot be looked at.
    return bool(row.host != socket.gethostname() or row.boot.partition(" ")[0] == _boot())


def database_ns(connection: Connection) -> int:
    """Nanoseconds since 1970 by the clock that all who share this journal share."""
    if connection.dialect.name == "postgresql":
        return int(connection.execute(_CLOCK).scalar_one())
    return time.time_ns()


def _take(journal: Store, held: Held) -> int | None:
    """None when the lock is ours now, else the pid of whoever has it."""
    with journal.writing() as connection:
        row = connection.execute(select(locks).where(locks.c.agent == held.agent)).one_or_none()
        now = database_ns(connection)
        if row is not None:
            if owned(row, now):
                return int(row.pid)
            connection.execute(delete(locks).where(locks.c.agent == held.agent))
        connection.execute(
            insert(locks).values(
                agent=held.agent,
                token=held.token,
                host=socket.gethostname(),
                boot=_here(),
                pid=os.getpid(),
                started=_started(os.getpid()),
                taken_ns=now,
                until_ns=now + round(LEASE_SECONDS * 1e9),
            )
        )
    return None


def _started(pid: int) -> int:
    """Clock ticks from boot to the process's start; 0 when there is no such process, or only its remains."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return 0 if fields[0] in "ZX" else int(fields[19])


def _boot() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def _here() -> str:
    """The boot, and within it the namespace that our pids count in: a container's 7 is not the host's."""
    return f"{_boot()} {Path('/proc/self/ns/pid').stat().st_ino}"
