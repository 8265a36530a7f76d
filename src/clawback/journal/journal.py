"""Incidents, findings, receipts and the timeline, each change one durable transaction.

A receipt's change and its line in the timeline are written together. Every method that changes something returns the
thing as it then stands; all raise `NotFound` for an unknown id, and `Refused` for a step that its state does not allow.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Any

from sqlalchemy import Connection, insert, select, update

from clawback.errors import NotFound, Refused
from clawback.journal import records
from clawback.journal.database import open_database
from clawback.journal.locks import hold_lock
from clawback.journal.schema import findings, incidents, receipts, timeline
from clawback.journal.states import FROM, SETTLED
from clawback.model import (
    Enforcement,
    Finding,
    Incident,
    IncidentStatus,
    Orchestration,
    Phase,
    Receipt,
    ReceiptState,
)

__all__ = ["Journal"]

_ID_ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"  # Crockford's: nothing to mistake when read aloud


class Journal:
    """The record of all incidents. `url` is SQLAlchemy's; `InvalidInput` or `Unreachable` if it does not open."""

    def __init__(self, url: str) -> None:
        self._engine = open_database(url)

    def dispose(self) -> None:
        """Close all connections; the next use opens new ones (as after a fork)."""
        self._engine.dispose()

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """A consistent view for several reads."""
        with self._engine.connect() as connection, connection.begin():
            yield connection

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """One durable change: on disk when this returns, gone without trace when it raises."""
        with self._engine.connect().execution_options(writes=True) as connection, connection.begin():
            yield connection

    # -- incidents ---------------------------------------------------------------------------------------------------

    def open_or_join(self, finding: Finding, *, playbook: str, drill: bool = False) -> tuple[Incident, bool]:
        """The incident that this finding belongs to, and whether it was opened just now.

        Joins the open incident of the same agent instance; a finding already in it (`Finding.key`) changes nothing. The
        same events seen again, as by a watch that restarts, lead to the incident they led to before, closed or not.
        """
        agent = records.identifier(finding.agent, "agent")
        instance = records.identifier(finding.instance, "instance")
        occurrence, now = records.occurrence_of(finding), time.time_ns()
        with self.writing() as connection:
            again = connection.execute(
                select(incidents.c.id)
                .join(findings, findings.c.incident == incidents.c.id)
                .where(findings.c.occurrence == occurrence, incidents.c.agent == agent, incidents.c.drill == drill)
                .limit(1)
            ).scalar()
            if again is not None:
                return self._incident(connection, again), False
            row = connection.execute(
                select(incidents).where(
                    incidents.c.agent == agent,
                    incidents.c.instance == instance,
                    incidents.c.drill == drill,
                    incidents.c.status == IncidentStatus.OPEN,
                )
            ).one_or_none()
            if row is None:
                incident = self._open(connection, finding, records.bounded(playbook, 256), drill=drill, now=now)
            else:
                incident = str(row.id)
                if finding.severity > row.severity:
                    connection.execute(
                        update(incidents).where(incidents.c.id == incident).values(severity=int(finding.severity))
                    )
            digest = records.digest_of(finding)
            known = connection.execute(
                select(findings.c.id).where(findings.c.incident == incident, findings.c.digest == digest)
            ).scalar()
            if known is None:
                connection.execute(
                    insert(findings).values(
                        incident=incident, digest=digest, occurrence=occurrence, body=records.finding_body(finding)
                    )
                )
                self._line(
                    connection, incident, Phase.IDENTIFY, f"finding {finding.detector}", finding.summary, at_ns=now
                )
            return self._incident(connection, incident), row is None

    def _open(self, connection: Connection, finding: Finding, playbook: str, *, drill: bool, now: int) -> str:
        day = time.strftime("%Y%m%d", time.gmtime(now / 1e9))
        while True:
            incident = f"INC-{day}-" + "".join(secrets.choice(_ID_ALPHABET) for _ in range(6))
            if connection.execute(select(incidents.c.id).where(incidents.c.id == incident)).scalar() is None:
                break
        connection.execute(
            insert(incidents).values(
                id=incident,
                agent=finding.agent,
                instance=finding.instance,
                status=IncidentStatus.OPEN,
                phase=Phase.IDENTIFY,
                severity=int(finding.severity),
                playbook=playbook,
                drill=drill,
                orchestration=Orchestration.NONE,
                opened_ns=now,
                closed_ns=0,
            )
        )
        what = "drill opened" if drill else "incident opened"
        self._line(connection, incident, Phase.IDENTIFY, what, f"{finding.agent} ({finding.instance})", at_ns=now)
        return incident

    def incident(self, incident: str | Incident) -> Incident:
        """The incident as it stands, with findings, receipts and timeline in the order in which they came."""
        with self.reading() as connection:
            return self._incident(connection, _id(incident))

    def incidents(self, status: IncidentStatus | None = None) -> tuple[Incident, ...]:
        """All, or those of one status, oldest first."""
        query = select(incidents.c.id).order_by(incidents.c.opened_ns, incidents.c.id)
        if status is not None:
            query = query.where(incidents.c.status == status)
        with self.reading() as connection:
            return tuple(self._incident(connection, name) for name in connection.execute(query).scalars().all())

    def note(self, incident: str | Incident, phase: Phase, what: str, detail: str = "") -> None:
        """Add a line to the timeline."""
        with self.writing() as connection:
            self._row(connection, _id(incident))
            self._line(connection, _id(incident), phase, what, detail)

    def enter(self, incident: str | Incident, phase: Phase) -> None:
        """The response is in this phase now. Entering again, as a resumed playbook does, adds no second line."""
        with self.writing() as connection:
            row = self._row(connection, _id(incident))
            what = f"phase {phase.value}"
            known = connection.execute(
                select(timeline.c.id).where(timeline.c.incident == row.id, timeline.c.what == what).limit(1)
            ).scalar()
            if known is None:
                self._line(connection, row.id, phase, what, phase.csf)
            if row.phase != phase:
                connection.execute(update(incidents).where(incidents.c.id == row.id).values(phase=phase))

    def orchestration(self, incident: str | Incident, orchestration: Orchestration, detail: str = "") -> None:
        """Who drives the playbook from here on."""
        with self.writing() as connection:
            row = self._row(connection, _id(incident))
            if row.orchestration != orchestration:
                connection.execute(
                    update(incidents).where(incidents.c.id == row.id).values(orchestration=orchestration)
                )
                self._line(connection, row.id, Phase(row.phase), f"orchestration {orchestration.value}", detail)

    def close(self, incident: str | Incident, *, findings_seen: int | None = None) -> Incident:
        """Close it if every receipt is settled; otherwise it stays open and is returned so.

        With `findings_seen`, also only if no further finding has joined: its playbook has not answered that one.
        """
        with self.writing() as connection:
            current = self._incident(connection, _id(incident))
            unsettled = [receipt for receipt in current.receipts if receipt.state not in SETTLED]
            grown = findings_seen is not None and len(current.findings) != findings_seen
            if current.status is IncidentStatus.CLOSED or unsettled or grown:
                return current
            now = time.time_ns()
            connection.execute(
                update(incidents)
                .where(incidents.c.id == current.id)
                .values(status=IncidentStatus.CLOSED, closed_ns=now)
            )
            self._line(
                connection, current.id, current.phase, "incident closed", f"{len(current.receipts)} steps", at_ns=now
            )
            return self._incident(connection, current.id)

    # -- receipts ----------------------------------------------------------------------------------------------------

    def intend(  # noqa: PLR0917 - what it records, in the order of the words
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
        effect as the state to return to. `captured` given here saves a separate write, and counts only if there is none.
        """
        now = time.time_ns()
        fresh = (
            {"captured": records.plain(captured, f"{action}: captured"), "captured_ns": now}
            if captured is not None
            else {}
        )
        with self.writing() as connection:
            incident = self._row(connection, _id(incident)).id
            known = connection.execute(
                select(receipts).where(receipts.c.incident == incident, receipts.c.key == key)
            ).one_or_none()
            again = {
                "state": ReceiptState.INTENDED,
                "params": records.plain(params, f"{action}: params"),
                "actor": records.bounded(actor, 256),
                "error": "",
                "intended_ns": now,
            }
            if known is None:
                statement = insert(receipts).values(
                    incident=incident,
                    key=key,
                    action=action,
                    phase=phase,
                    proof="",
                    attempts=1,
                    applied_ns=0,
                    verified_ns=0,
                    reverted_ns=0,
                    outcome={},
                    **({"captured": {}, "captured_ns": 0} | fresh),
                    **again,
                )
                return records.to_receipt(connection.execute(statement.returning(receipts)).one())
            self._allowed(known, ReceiptState.INTENDED)
            kept = {} if known.captured_ns else fresh
            return self._change(connection, known.id, attempts=known.attempts + 1, **again, **kept)

    def captured(self, receipt: int, captured: Mapping[str, Any]) -> Receipt:
        """What undoing needs; the first record stays."""
        with self.writing() as connection:
            row = self._receipt(connection, receipt)
            if row.captured_ns:
                return records.to_receipt(row)
            data = records.plain(captured, f"{row.action}: captured")
            return self._change(connection, receipt, captured=data, captured_ns=time.time_ns())

    def applied(self, receipt: int, outcome: Mapping[str, Any]) -> Receipt:
        """The change was made; nothing is claimed about its effect yet."""
        return self._to(receipt, ReceiptState.APPLIED, "applied_ns", outcome=outcome)

    def verified(self, receipt: int, proof: str, enforcement: Enforcement) -> Receipt:
        """The effect was observed."""
        return self._to(receipt, ReceiptState.VERIFIED, "verified_ns", proof=proof, enforcement=enforcement)

    def unverified(self, receipt: int, proof: str, enforcement: Enforcement) -> Receipt:
        """It was looked for and not observed; `proof` says what was seen instead."""
        return self._to(receipt, ReceiptState.UNVERIFIED, proof=proof, enforcement=enforcement)

    def failed(self, receipt: int, error: str) -> Receipt:
        """It could not be done."""
        return self._to(receipt, ReceiptState.FAILED, error=error)

    def pending(self, receipt: int, error: str) -> Receipt:
        """A part did not answer: the state stays what it was, to be gone on from by `clawback resume`."""
        with self.writing() as connection:
            row = self._receipt(connection, receipt)
            self._line(connection, row.incident, Phase(row.phase), f"{row.action} pending", error)
            return self._change(connection, receipt, error=records.bounded(error))

    def revert_pending(self, receipt: int) -> Receipt:
        """Undoing is about to begin."""
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

    # -- locks -------------------------------------------------------------------------------------------------------

    def lock(self, agent: str, *, timeout: float = 0.0) -> AbstractContextManager[None]:
        """Be the only response that works on this agent, across processes; `Refused` after `timeout` seconds."""
        return hold_lock(self, agent, timeout)

    # -- within a transaction ----------------------------------------------------------------------------------------

    def _to(
        self,
        receipt: int,
        state: ReceiptState,
        stamp: str = "",
        *,
        outcome: Mapping[str, Any] | None = None,
        proof: str | None = None,
        enforcement: Enforcement | None = None,
        error: str = "",
    ) -> Receipt:
        now = time.time_ns()
        with self.writing() as connection:
            row = self._receipt(connection, receipt)
            self._allowed(row, state)
            values: dict[str, Any] = {"state": state, "error": records.bounded(error)}
            if stamp:
                values[stamp] = now
            if outcome is not None:
                values["outcome"] = records.plain(outcome, f"{row.action}: outcome")
            if proof is not None:
                values["proof"] = records.bounded(proof)
            if enforcement is not None:
                values["enforcement"] = enforcement
            if state is not ReceiptState.APPLIED:  # its proof, or the lack of it, follows at once
                self._line(
                    connection, row.incident, Phase(row.phase), f"{row.action} {state.value}", proof or error, now
                )
            return self._change(connection, receipt, **values)

    @staticmethod
    def _allowed(row: Any, state: ReceiptState) -> None:
        if ReceiptState(row.state) not in FROM[state]:
            raise Refused(f"{row.action} is {row.state} and cannot become {state.value}", hint=f"receipt {row.id}")

    @staticmethod
    def _change(connection: Connection, receipt: int, **values: Any) -> Receipt:
        statement = update(receipts).where(receipts.c.id == receipt).values(**values).returning(receipts)
        return records.to_receipt(connection.execute(statement).one())

    @staticmethod
    def _receipt(connection: Connection, receipt: int) -> Any:
        row = connection.execute(select(receipts).where(receipts.c.id == receipt)).one_or_none()
        if row is None:
            raise NotFound(f"no receipt {receipt} in the journal")
        return row

    @staticmethod
    def _row(connection: Connection, incident: str) -> Any:
        row = connection.execute(select(incidents).where(incidents.c.id == incident)).one_or_none()
        if row is None:
            raise NotFound(f"no incident {incident[:40]!a}", hint="`clawback incidents` lists them")
        return row

    @staticmethod
    def _line(
        connection: Connection, incident: str, phase: Phase, what: str, detail: str = "", *, at_ns: int = 0
    ) -> None:
        connection.execute(
            insert(timeline).values(
                incident=incident,
                at_ns=at_ns or time.time_ns(),
                phase=phase,
                what=records.bounded(what, 512),
                detail=records.bounded(detail),
            )
        )

    def _incident(self, connection: Connection, incident: str) -> Incident:
        row = self._row(connection, incident)
        found = connection.execute(
            select(findings.c.body).where(findings.c.incident == incident).order_by(findings.c.id)
        )
        done = connection.execute(select(receipts).where(receipts.c.incident == incident).order_by(receipts.c.id))
        lines = connection.execute(select(timeline).where(timeline.c.incident == incident).order_by(timeline.c.id))
        return records.to_incident(
            row,
            tuple(records.to_finding(body) for body in found.scalars()),
            tuple(records.to_receipt(item) for item in done),
            tuple(records.to_timeline(line) for line in lines),
        )


def _id(incident: str | Incident) -> str:
    return incident if isinstance(incident, str) else incident.id
