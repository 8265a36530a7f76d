"""The journal's second looks: which incidents are looked at again, and what is written when a proof no longer holds."""

from __future__ import annotations

from sqlalchemy import or_, select

from clawback.errors import Refused
from clawback.journal import records
from clawback.journal.receipts import Receipts
from clawback.journal.schema import incidents
from clawback.model import DRIFT, Enforcement, Incident, IncidentStatus, ReceiptState

__all__ = ["Drift"]


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
        with self.glancing() as connection:
            return tuple(connection.execute(query).scalars().all())

    def drifted(self, receipt: int, proof: str, enforcement: Enforcement) -> Incident:
        """What was verified was looked at again and is not so: the receipt is unverified, and its incident open again.

        One transaction: no receipt may be unverified in an incident that is closed. `Refused` for a receipt that claims
        nothing, and while another incident of the same agent instance is open: there is one at a time.
        """
        with self.writing() as connection:
            values = {
                "state": ReceiptState.UNVERIFIED,
                "proof": records.bounded(DRIFT + proof),
                "enforcement": enforcement,
                "error": "",
            }
            row = self._moved(connection, receipt, ReceiptState.UNVERIFIED, values)
            self._line(connection, row.incident, row.phase, f"{row.action} drifted", proof)
            if not self._reopen(connection, row, f"{row.action} does not hold"):
                raise Refused(
                    f"{row.incident} is not opened again while another of its agent instance is: {row.action} does not "
                    f"hold: {proof[:300]}"
                )
            return self._incident(connection, row.incident)
