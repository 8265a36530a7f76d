"""Which open incidents want a responder now: so that any number of workers share them, and none is forgotten.

An incident nobody has worked on is due. One that was worked on is due again when its row says so: soon where a part was
away, and otherwise only once somebody asks (`enqueue`). Who may work on it is the agent's lock's business.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

from sqlalchemy import ColumnElement, Connection, delete, func, insert, select, true, update

from clawback.journal.locks import database_ns, owned
from clawback.journal.schema import incidents, locks, work
from clawback.journal.store import Store
from clawback.model import Incident, IncidentStatus

__all__ = ["Turn", "Work"]

_MOST = 512
_NEVER = 2**62  # until somebody asks


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """A run that may begin. `incident` as it stood then; `asked` tells whether somebody asked again while it ran;
    `tries` and `pending` are of those before it that ended short.
    """

    incident: Incident
    asked: int
    tries: int
    pending: int


class Work(Store):
    """What `Journal` does with work. A turn is taken (`turn`) and given back (`rest`) under the agent's lock."""

    def due(self) -> tuple[str, ...]:
        """Incidents to work on that nobody works on: real ones first, then the most severe, then the oldest."""
        with self.glancing() as connection:
            return self._due(connection, true())

    def waits(self, incident: str) -> bool:
        """It is due and nobody works on it: whoever takes it next sees all that is on record by now."""
        with self.glancing() as connection:
            return incident in self._due(connection, incidents.c.id == incident)

    def opened_within(self, seconds: float) -> int:
        """How many incidents were opened in the last `seconds`, by this host's clock."""
        now, width = time.time_ns(), round(seconds * 1e9)
        query = (
            select(func.count())
            .select_from(incidents)
            .where(incidents.c.status == IncidentStatus.OPEN, incidents.c.opened_ns.between(now - width, now + width))
        )
        with self.glancing() as connection:
            return int(connection.execute(query).scalar_one())

    def enqueue(self, incident: str) -> None:
        """It is due now, and once more if it is worked on already."""
        with self.writing() as connection:
            self._row(connection, incident)
            now = database_ns(connection)
            values = {"due_ns": now, "tries": 0}
            again = update(work).where(work.c.incident == incident).values(asked=work.c.asked + 1, **values)
            if not connection.execute(again).rowcount:
                connection.execute(insert(work).values(incident=incident, asked=1, pending=0, **values))

    def turn(self, incident: str) -> Turn | None:
        """Begin; None where it is not due after all: another worker was faster, or it is closed."""
        with self.reading() as connection:
            now = database_ns(connection)
            row = connection.execute(select(work).where(work.c.incident == incident)).one_or_none()
            taken = self._incident(connection, incident)
        if taken.status is not IncidentStatus.OPEN or (row is not None and row.due_ns > now):
            return None
        if row is None:
            return Turn(incident=taken, asked=0, tries=0, pending=0)
        return Turn(incident=taken, asked=row.asked, tries=row.tries, pending=row.pending)

    def rest(self, turn: Turn, *, seconds: float | None, tries: int, pending: int) -> None:
        """It was worked on: due again in so long, or (None) when somebody asks. Who asked meanwhile is heard."""
        incident = turn.incident.id
        with self.writing() as connection:
            if self._row(connection, incident).status != IncidentStatus.OPEN:
                connection.execute(delete(work).where(work.c.incident == incident))
                return
            due = _NEVER if seconds is None else database_ns(connection) + round(seconds * 1e9)
            row = connection.execute(select(work.c.asked).where(work.c.incident == incident)).scalar()
            values = {"due_ns": due, "tries": tries, "pending": pending}
            if row is None:
                connection.execute(insert(work).values(incident=incident, asked=turn.asked, **values))
            elif row == turn.asked:
                connection.execute(update(work).where(work.c.incident == incident).values(**values))

    def _due(self, connection: Connection, which: ColumnElement[bool]) -> tuple[str, ...]:
        now = database_ns(connection)
        wanted = (incidents.c.status == IncidentStatus.OPEN) & (work.c.incident.is_(None) | (work.c.due_ns <= now))
        rows = connection.execute(
            select(incidents.c.id, locks.c.host, locks.c.boot, locks.c.pid, locks.c.started, locks.c.until_ns)
            .outerjoin(work, work.c.incident == incidents.c.id)
            .outerjoin(locks, locks.c.agent == incidents.c.agent)
            .where(wanted, which)
            .order_by(incidents.c.drill, incidents.c.severity.desc(), incidents.c.opened_ns, incidents.c.id)
            .limit(_MOST)
        ).all()
        return tuple(row.id for row in rows if row.until_ns is None or not owned(row, now))
