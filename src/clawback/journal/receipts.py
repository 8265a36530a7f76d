"""The journal's receipts: each step of an action, written down in the order in which a crash may interrupt it."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection, bindparam, insert, select, update

from clawback.errors import NotFound, Refused
from clawback.journal import audit, records
from clawback.journal.schema import incidents, receipts
from clawback.journal.states import FROM
from clawback.journal.store import Store, id_of
from clawback.model import Enforcement, Incident, IncidentStatus, Phase, Receipt, ReceiptState

__all__ = ["Receipts"]

# Built once, as in `store`.
_BY_KEY = select(receipts).where(receipts.c.incident == bindparam("incident"), receipts.c.key == bindparam("key"))
_BY_ID = select(receipts).where(receipts.c.id == bindparam("receipt"))
_OTHER = select(incidents.c.id).where(
    incidents.c.agent == bindparam("agent"),
    incidents.c.instance == bindparam("instance"),
    incidents.c.drill == bindparam("drill"),
    incidents.c.status == IncidentStatus.OPEN,
    incidents.c.id != bindparam("incident"),
)
_NEW = insert(receipts).returning(*audit.stored(receipts))
_CHANGE = update(receipts).where(receipts.c.id == bindparam("receipt")).returning(*audit.stored(receipts))
_CAPTURED = _CHANGE.where(receipts.c.captured_ns == 0)
_TO = {state: _CHANGE.where(receipts.c.state.in_([one.value for one in before])) for state, before in FROM.items()}


class Receipts(Store):
    """What `Journal` does with receipts."""

    def intend(
        self,
        incident: str | Incident,
        key: str,
        action: str,
        phase: Phase,
        params: Mapping[str, Any],
        actor: str,
        *,
        captured: Mapping[str, Any] | None = None,
    ) -> Receipt:
        """Write down, before any effect, that an action is about to be made. The same key again is the next attempt.

        What an earlier attempt captured is kept: after an effect that may have happened, reading anew would record the
        effect as the state to return to. `captured` given here saves a write, and counts only if there is none yet.
        """
        now = time.time_ns()
        fresh = (
            {"captured": records.plain(captured, f"{action}: captured"), "captured_ns": now}
            if captured is not None
            else {}
        )
        with self.writing() as connection:
            again = {
                "state": ReceiptState.INTENDED,
                "params": records.plain(params, f"{action}: params"),
                "actor": records.bounded(actor, 256),
                "error": "",
                "intended_ns": now,
            }
            return self._begin(connection, incident, key, action, phase, again, fresh)

    def awaiting(
        self,
        incident: str | Incident,
        key: str,
        action: str,
        phase: Phase,
        params: Mapping[str, Any],
        actor: str,
        why: str,
    ) -> Receipt:
        """Write down that a step waits for a person; nothing was done."""
        with self.writing() as connection:
            waiting = {
                "state": ReceiptState.AWAITING,
                "params": records.plain(params, f"{action}: params"),
                "actor": records.bounded(actor, 256),
                "error": records.bounded(why),
                "intended_ns": 0,
            }
            return self._begin(connection, incident, key, action, phase, waiting, {})

    def _begin(
        self,
        connection: Connection,
        incident: str | Incident,
        key: str,
        action: str,
        phase: Phase,
        values: dict[str, Any],
        fresh: dict[str, Any],
    ) -> Receipt:
        """A new receipt, or the known one's next attempt."""
        if isinstance(incident, str):  # one that was read here is here: none is ever taken out
            self._row(connection, incident)
        name = id_of(incident)
        known = connection.execute(_BY_KEY, {"incident": name, "key": key}).one_or_none()
        if known is not None:
            if ReceiptState(known.state) not in FROM[values["state"]]:
                raise _refused(known, values["state"])
            kept = {} if known.captured_ns else fresh
            return self._change(connection, known.id, attempts=known.attempts + 1, **values, **kept)
        first: dict[str, Any] = {
            "incident": name,
            "key": key,
            "action": action,
            "phase": phase,
            "proof": "",
            "attempts": 1,
            "captured": {},
            "captured_ns": 0,
            "applied_ns": 0,
            "verified_ns": 0,
            "reverted_ns": 0,
            "outcome": {},
        }
        return self._told(connection, connection.execute(_NEW, first | fresh | values).one())

    def captured(self, receipt: int | Receipt, captured: Mapping[str, Any]) -> Receipt:
        """What undoing needs; the first record stays."""
        number, name = _named(receipt)
        data = {"captured": records.plain(captured, f"{name}: captured"), "captured_ns": time.time_ns()}
        with self.writing() as connection:
            row = connection.execute(_CAPTURED, {"receipt": number, **data}).one_or_none()
            if row is None:
                return records.to_receipt(self._receipt(connection, number))
            return self._told(connection, row)

    def applied(self, receipt: int | Receipt, outcome: Mapping[str, Any]) -> Receipt:
        """The change was made; nothing is claimed about its effect yet."""
        return self._to(receipt, ReceiptState.APPLIED, "applied_ns", outcome=outcome)

    def verified(self, receipt: int, proof: str, enforcement: Enforcement) -> Receipt:
        """The effect was observed."""
        return self._to(receipt, ReceiptState.VERIFIED, "verified_ns", proof=proof, enforcement=enforcement)

    def held(self, receipt: int | Receipt, outcome: Mapping[str, Any], proof: str, enforcement: Enforcement) -> Receipt:
        """It was done and its effect observed, both told by one answer: one change where `applied` and `verified` are
        two.
        """
        now = time.time_ns()
        number, name = _named(receipt)
        values = {
            "state": ReceiptState.VERIFIED,
            "outcome": records.plain(outcome, f"{name}: outcome"),
            "proof": records.bounded(proof),
            "enforcement": enforcement,
            "error": "",
            "applied_ns": now,
            "verified_ns": now,
        }
        with self.writing() as connection:
            made = self._moved(connection, number, ReceiptState.APPLIED, values)
            self._line(connection, made.incident, made.phase, f"{made.action} {made.state.value}", proof, at_ns=now)
            return made

    def unverified(self, receipt: int, proof: str, enforcement: Enforcement) -> Receipt:
        """It was looked for and not observed; `proof` says what was seen instead."""
        return self._to(receipt, ReceiptState.UNVERIFIED, proof=proof, enforcement=enforcement)

    def failed(self, receipt: int, error: str) -> Receipt:
        """It could not be done."""
        return self._to(receipt, ReceiptState.FAILED, error=error)

    def pending(self, receipt: int, error: str) -> Receipt:
        """A part did not answer: the state stays what it was, to be gone on from by `clawback resume`."""
        with self.writing() as connection:
            left = self._change(connection, receipt, error=records.bounded(error))
            self._line(connection, left.incident, left.phase, f"{left.action} pending", error)
            return left

    def revert_pending(self, receipt: int) -> Receipt:
        """Undoing is about to begin. A closed incident is open again meanwhile, so that one cut off is gone on with."""
        return self._to(receipt, ReceiptState.REVERT_PENDING)

    def reverted(self, receipt: int, proof: str) -> Receipt:
        """It was observed to be undone."""
        return self._to(receipt, ReceiptState.REVERTED, "reverted_ns", proof=proof)

    def already_absent(self, receipt: int, proof: str) -> Receipt:
        """There was nothing left to undo."""
        return self._to(receipt, ReceiptState.ALREADY_ABSENT, "reverted_ns", proof=proof)

    def revert_failed(self, receipt: int, error: str) -> Receipt:
        """Undoing did not work, or could not be observed."""
        return self._to(receipt, ReceiptState.REVERT_FAILED, error=error)

    def orphaned(self, receipt: int, error: str) -> Receipt:
        """What it was done to is gone, so that it can be neither undone nor shown to be undone."""
        return self._to(receipt, ReceiptState.ORPHANED, error=error)

    def accepted(self, receipt: int, why: str) -> Receipt:
        """A person lets it stand as it is: nobody tries it again, and it keeps no incident open."""
        return self._to(receipt, ReceiptState.ACCEPTED, error=why)

    def _to(
        self,
        receipt: int | Receipt,
        state: ReceiptState,
        stamp: str = "",
        *,
        outcome: Mapping[str, Any] | None = None,
        proof: str | None = None,
        enforcement: Enforcement | None = None,
        error: str = "",
    ) -> Receipt:
        now = time.time_ns()
        number, name = _named(receipt)
        values: dict[str, Any] = {"state": state, "error": records.bounded(error)}
        if stamp:
            values[stamp] = now
        if outcome is not None:
            values["outcome"] = records.plain(outcome, f"{name}: outcome")
        if proof is not None:
            values["proof"] = records.bounded(proof)
        if enforcement is not None:
            values["enforcement"] = enforcement
        with self.writing() as connection:
            made = self._moved(connection, number, state, values)
            if state is ReceiptState.REVERT_PENDING:
                self._reopen(connection, made, "something of it is being undone")
            if state is not ReceiptState.APPLIED:  # its proof, or the lack of it, follows at once
                self._line(
                    connection, made.incident, made.phase, f"{made.action} {state.value}", proof or error, at_ns=now
                )
            return made

    def _reopen(self, connection: Connection, receipt: Any, why: str) -> bool:
        """Open the receipt's incident again, if it is closed; false where another of the same instance is open."""
        incident = self._row(connection, receipt.incident)
        if incident.status != IncidentStatus.CLOSED:
            return True
        instance = {"agent": incident.agent, "instance": incident.instance, "drill": incident.drill}
        if connection.execute(_OTHER, {"incident": incident.id, **instance}).scalar() is not None:
            return False
        connection.execute(
            update(incidents)
            .where(incidents.c.id == incident.id)
            .values(status=IncidentStatus.OPEN, phase=receipt.phase, closed_ns=0)
        )
        self._touch(connection, "incident", incident.id, incident.id, "incident reopened")
        self._line(connection, incident.id, Phase(receipt.phase), "incident reopened", why)
        return True

    def _moved(self, connection: Connection, receipt: int, state: ReceiptState, values: dict[str, Any]) -> Receipt:
        """Changed, if it is in a state from which `state` may follow."""
        row = connection.execute(_TO[state], {"receipt": receipt, **values}).one_or_none()
        if row is None:
            raise _refused(self._receipt(connection, receipt), state)
        return self._told(connection, row)

    def _change(self, connection: Connection, receipt: int, **values: Any) -> Receipt:
        row = connection.execute(_CHANGE, {"receipt": receipt, **values}).one_or_none()
        if row is None:
            raise _unknown(receipt)
        return self._told(connection, row)

    def _told(self, connection: Connection, row: Any) -> Receipt:
        self._touch(connection, "receipt", row.id, row.incident, f"{row.action} {row.state}", row.actor, row=row)
        return records.to_receipt(row)

    @staticmethod
    def _receipt(connection: Connection, receipt: int) -> Any:
        row = connection.execute(_BY_ID, {"receipt": receipt}).one_or_none()
        if row is None:
            raise _unknown(receipt)
        return row


def _named(receipt: int | Receipt) -> tuple[int, str]:
    """Its number, and what to call what came of it."""
    return (receipt, f"receipt {receipt}") if isinstance(receipt, int) else (receipt.id, receipt.action)


def _refused(row: Any, state: ReceiptState) -> Refused:
    return Refused(f"{row.action} is {row.state} and cannot become {state.value}", hint=f"receipt {row.id}")


def _unknown(receipt: int) -> NotFound:
    return NotFound(f"no receipt {receipt} in the journal")
