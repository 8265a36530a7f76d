"""The journal's second looks: which incidents are looked at again, and what is written when a proof no longer holds."""

from __future__ import annotations

import time
from typing import Any

from sqlalchemy import bindparam, or_, select, update

from clawback.errors import Refused
from clawback.journal import records
from clawback.journal.receipts import Receipts
from clawback.journal.schema import incidents
from clawback.model import Enforcement, Incident, IncidentStatus, Phase, ReceiptState

__all__ = ["Drift"]

_OTHER = select(incidents.c.id).where(
    incidents.c.agent == bindparam("agent"),
    incidents.c.instance == bindparam("instance"),
    incidents.c.drill == bindparam("drill"),
    incidents.c.status == IncidentStatus.OPEN,
    incidents.c.id != bindparam("incident"),
)


def _of(incident: Any) -> dict[str, Any]:
    return {"agent": incident.agent, "instance": incident.instance, "drill": incident.drill}


class Drift(Receipts):
    """What `Journal` does with what was verified once."""

    def standing(self, since_ns: int) -> tuple[str, ...]:
        """Ids of the incidents that are open, or were closed at `since_ns` or later; the oldest first. No drills'."""
        query = (
            select(incidents.c.id)
            .where(
                incidents.c.drill.is_(False),
                or_(incidents.c.status == IncidentStatus.OPEN, incidents.c.closed_ns >= since_ns),
            )
            .order_by(incidents.c.opened_ns, incidents.c.id)
        )
        with self.reading() as connection:
            return tuple(connection.execute(query).scalars().all())

    def drifted(self, receipt: int, proof: str, enforcement: Enforcement) -> Incident:
        """What was verified was looked at again and is not so: the receipt is unverified, and its incident open again.

        One transaction: no receipt may be unverified in an incident that is closed. `Refused` for a receipt that claims
        nothing, and while another incident of the same agent instance is open: there is one at a time.
        """
        now = time.time_ns()
        with self.writing() as connection:
            row = self._receipt(connection, receipt)
            self._allowed(row, ReceiptState.UNVERIFIED)
            incident = self._row(connection, row.incident)
            if other := connection.execute(_OTHER, {"incident": incident.id, **_of(incident)}).scalar():
                raise Refused(
                    f"{incident.id} is not opened again while {other} is: {row.action} does not hold: {proof[:300]}",
                    hint=f"clawback show {other}",
                )
            self._change(
                connection,
                receipt,
                state=ReceiptState.UNVERIFIED,
                proof=records.bounded(f"drift: {proof}"),
                enforcement=enforcement,
                error="",
            )
            self._line(connection, row.incident, Phase(row.phase), f"{row.action} drifted", proof, at_ns=now)
            if incident.status == IncidentStatus.CLOSED:
                what = "incident reopened"
                connection.execute(
                    update(incidents)
                    .where(incidents.c.id == incident.id)
                    .values(status=IncidentStatus.OPEN, phase=row.phase, closed_ns=0)
                )
                self._touch(connection, "incident", incident.id, incident.id, what)
                self._line(connection, incident.id, Phase(row.phase), what, f"{row.action} does not hold", at_ns=now)
            return self._incident(connection, incident.id)
