"""What the journal's halves share: its transactions, and reading an incident within one."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Connection, Row, bindparam, insert, select
from sqlalchemy.exc import DatabaseError, InterfaceError, OperationalError

from clawback.errors import NotFound, Unreachable
from clawback.journal import audit, records
from clawback.journal.database import at_a_glance, at_one_moment, open_database, reason
from clawback.journal.schema import findings, incidents, receipts, timeline
from clawback.model import Incident, Phase

__all__ = ["Store", "id_of"]

# Built once: making a statement anew costs more than running it, and a reflex runs a dozen before it may freeze.
_ROW = select(incidents).where(incidents.c.id == bindparam("incident"))
_LINE = insert(timeline).returning(*audit.stored(timeline))
_FINDINGS = select(findings.c.body).where(findings.c.incident == bindparam("incident")).order_by(findings.c.id)
_RECEIPTS = select(receipts).where(receipts.c.incident == bindparam("incident")).order_by(receipts.c.id)
_TIMELINE = select(timeline).where(timeline.c.incident == bindparam("incident")).order_by(timeline.c.id)


def id_of(incident: str | Incident) -> str:
    """Callers may name an incident or hand it over."""
    return incident if isinstance(incident, str) else incident.id


@contextmanager
def _answering() -> Iterator[None]:
    """A full disk, a lock held for too long, a file that went away or is damaged: `Unreachable`, as any other part."""
    try:
        yield
    except (DatabaseError, InterfaceError, UnicodeDecodeError) as error:
        # Of its kinds, those that are about what we asked are defects. Itself, it is a file that cannot be read as one.
        if isinstance(error, DatabaseError) and type(error) not in (DatabaseError, OperationalError):
            raise
        raise Unreachable(
            f"the journal does not answer: {reason(error)}", hint="see the disk it is on; then `clawback resume`"
        ) from None


class Store:
    """A database, its transactions, and the rows that both halves need."""

    def __init__(self, url: str, *, make: bool = True) -> None:
        self._engine = open_database(url, make=make)
        self._view = at_one_moment(self._engine)
        self._glance = at_a_glance(self._engine)
        self._turn = threading.Lock()
        self._mine = threading.local()

    def dispose(self) -> None:
        """Close all connections; the next use opens new ones (as after a fork)."""
        self._engine.dispose()

    @contextmanager
    def together(self) -> Iterator[None]:
        """What this thread changes inside becomes durable at the end, in one flush to disk: all of it or nothing.

        Let what a change inside raises end all of it: caught inside, what that change had made by then would stay.
        """
        with self.writing() as connection:
            self._mine.connection = connection
            try:
                yield
            finally:
                del self._mine.connection

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """One moment for several reads, whatever others write meanwhile; inside `together`, with what was changed there
        too.
        """
        if (ours := getattr(self._mine, "connection", None)) is not None:
            yield ours
            return
        with _answering(), self._view.connect() as connection, connection.begin():
            yield connection

    @contextmanager
    def glancing(self) -> Iterator[Connection]:
        """For one read, or several that need not be of one moment: no transaction to begin and to end around it."""
        if (ours := getattr(self._mine, "connection", None)) is not None:
            yield ours
            return
        with _answering(), self._glance.connect() as connection:
            yield connection

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """One durable change, or a part of the one around it: on disk when that returns, gone without trace when it
        raises.

        What was touched (`_touch`) is entered in the audit record by the same transaction.
        """
        if (ours := getattr(self._mine, "connection", None)) is not None:
            yield ours
            return
        # Threads hand over at once; SQLite would let the second sleep and look again, for up to 100 ms.
        with (
            self._turn,
            _answering(),
            self._engine.connect().execution_options(writes=True) as connection,
            connection.begin(),
        ):
            touched: list[audit.Touched] = []
            connection.info["touched"] = touched
            yield connection
            audit.append(connection, touched)

    @staticmethod
    def _touch(
        connection: Connection,
        kind: str,
        ref: str | int,
        incident: str,
        what: str,
        actor: str = "",
        *,
        row: Row[Any] | None = None,
    ) -> None:
        """`row`: all of it (`audit.stored`), as the change that is told of left it. Without it it is read once more."""
        digest = None if row is None else audit.digest(row)
        connection.info["touched"].append(audit.Touched(kind, ref, incident, what, actor, digest))

    @staticmethod
    def _row(connection: Connection, incident: str) -> Any:
        row = connection.execute(_ROW, {"incident": incident}).one_or_none()
        if row is None:
            raise NotFound(f"no incident {incident[:40]!a}", hint="`clawback incidents` lists them")
        return row

    def _line(
        self, connection: Connection, incident: str, phase: Phase, what: str, detail: str = "", *, at_ns: int = 0
    ) -> None:
        what = records.bounded(what, 512)
        line = {
            "incident": incident,
            "at_ns": at_ns or time.time_ns(),
            "phase": phase,
            "what": what,
            "detail": records.bounded(detail),
        }
        row = connection.execute(_LINE, line).one()
        self._touch(connection, "line", row.id, incident, what, row=row)

    def audit_verify(self, *, noted: str = "") -> tuple[int, list[audit.Fault], str]:
        """See `audit.verify`; and the head of what was looked at."""
        with self.reading() as connection:
            count, faults = audit.verify(connection, noted=noted)
            return count, faults, audit.head(connection)

    def audit_entries(self) -> Iterator[audit.AuditEntry]:
        """The audit record, oldest first, as it stands when this is called."""
        with self.reading() as connection:
            yield from audit.entries(connection)

    def audit_head(self) -> str:
        """The audit record's newest entry as `SEQ:HASH`, to be noted where this journal's keeper cannot write."""
        with self.reading() as connection:
            return audit.head(connection)

    def _incident(self, connection: Connection, incident: str) -> Incident:
        row = self._row(connection, incident)
        which = {"incident": incident}
        found = connection.execute(_FINDINGS, which)
        done = connection.execute(_RECEIPTS, which)
        lines = connection.execute(_TIMELINE, which)
        return records.to_incident(
            row,
            tuple(records.to_finding(body) for body in found.scalars()),
            tuple(records.to_receipt(item) for item in done),
            tuple(records.to_timeline(line) for line in lines),
        )
