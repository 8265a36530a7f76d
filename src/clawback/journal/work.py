"""Which open incidents want a responder now: so that any number of workers share them, and none is forgotten.

An incident nobody has worked on is due. One that was worked on is due again when its row says so: soon where a part was
away, and otherwise only once somebody asks (`enqueue`). Who may work on it is the agent's lock's business.
"""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import delete, insert, select, update

from clawback.journal.locks import database_ns, owned
from clawback.journal.schema import incidents, locks, work
from clawback.journal.store import Store
from clawback.model import IncidentStatus

__all__ = ["Turn", "Work"]

_MOST = 512
_NEVER = 2**62  # until somebody asks


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """A run that may begin. `asked` tells whether somebody asked again while it ran; `tries` and `pending` are of those
    before it that ended short.
    """

    incident: str
    asked: int
    tries: int
    pending: int


class Work(Store):
    """What `Journal` does with work. A turn is taken (`turn`) and given back (`rest`) under the agent's lock."""

    def due(self) -> tuple[str, ...]:
        """Incidents to work on that nobody works on: real ones first, then the most severe, then the oldest."""
        query = (
            select(incidents.c.id, locks.c.host, locks.c.boot, locks.c.pid, locks.c.started, locks.c.until_ns)
            .outerjoin(work, work.c.incident == incidents.c.id)
            .outerjoin(locks, locks.c.agent == incidents.c.agent)
            .order_by(incidents.c.drill, incidents.c.severity.desc(), incidents.c.opened_ns, incidents.c.id)
            .limit(_MOST)
        )
        with self.reading() as connection:
            now = database_ns(connection)
            wanted = (incidents.c.status == IncidentStatus.OPEN) & (work.c.incident.is_(None) | (work.c.due_ns <= now))
            rows = connection.execute(query.where(wanted)).all()
        return tuple(row.id for row in rows if row.until_ns is None or not owned(row, now))

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
            status = self._row(connection, incident).status
        if status != IncidentStatus.OPEN or (row is not None and row.due_ns > now):
            return None
        if row is None:
            return Turn(incident=incident, asked=0, tries=0, pending=0)
        return Turn(incident=incident, asked=row.asked, tries=row.tries, pending=row.pending)

    def rest(self, turn: Turn, *, seconds: float | None, tries: int, pending: int) -> None:
        """It was worked on: due again in so long, or (None) when somebody asks. Who asked meanwhile is heard."""
        with self.writing() as connection:
            if self._row(connection, turn.incident).status != IncidentStatus.OPEN:
                connection.execute(delete(work).where(work.c.incident == turn.incident))
                return
            due = _NEVER if seconds is None else database_ns(connection) + round(seconds * 1e9)
            row = connection.execute(select(work.c.asked).where(work.c.incident == turn.incident)).scalar()
            values = {"due_ns": due, "tries": tries, "pending": pending}
            if row is None:
                connection.execute(insert(work).values(incident=turn.incident, asked=turn.asked, **values))
            elif row == turn.asked:
                connection.execute(update(work).where(work.c.incident == turn.incident).values(**values))
