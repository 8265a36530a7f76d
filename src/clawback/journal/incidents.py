"""The journal's incidents: opened or joined by findings, carried through the phases, closed when all is settled."""

from __future__ import annotations

import secrets
import time
from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, bindparam, insert, select, update

from clawback.journal import audit, records
from clawback.journal.schema import findings, incidents, timeline
from clawback.journal.states import SETTLED
from clawback.journal.store import Store, id_of
from clawback.model import PLAYBOOK_JOINS, Finding, Incident, IncidentStatus, Orchestration, Phase

__all__ = ["Incidents"]

_ID_ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"  # Crockford's: nothing to mistake when read aloud

# Built once, as in `store`.
_AGAIN = (
    select(incidents.c.id)
    .join(findings, findings.c.incident == incidents.c.id)
    .where(
        findings.c.occurrence == bindparam("occurrence"),
        incidents.c.agent == bindparam("agent"),
        incidents.c.drill == bindparam("drill"),
    )
    .limit(1)
)
_ANSWERED = (
    select(findings.c.occurrence, incidents.c.agent)
    .join(incidents, findings.c.incident == incidents.c.id)
    .where(
        findings.c.occurrence.in_(bindparam("occurrences", expanding=True)),
        incidents.c.drill == bindparam("drill"),
        incidents.c.status == bindparam("status"),
    )
)
_OPEN_ONE = select(incidents).where(
    incidents.c.agent == bindparam("agent"),
    incidents.c.instance == bindparam("instance"),
    incidents.c.drill == bindparam("drill"),
    incidents.c.status == bindparam("status"),
)
_KNOWN = select(findings.c.id).where(
    findings.c.incident == bindparam("incident"), findings.c.digest == bindparam("digest")
)
_TAKEN = select(incidents.c.id).where(incidents.c.id == bindparam("incident"))
_FINDING = insert(findings).returning(*audit.stored(findings))
_INCIDENT = insert(incidents).returning(*audit.stored(incidents))
_SET = update(incidents).where(incidents.c.id == bindparam("incident")).returning(*audit.stored(incidents))


class Incidents(Store):
    """What `Journal` does with incidents."""

    def open_or_join(self, finding: Finding, *, playbook: str, drill: bool = False) -> tuple[Incident, bool]:
        """The incident that this finding belongs to, and whether it was opened just now.

        Joins the open incident of the same agent instance; a finding already in it (`Finding.key`) changes nothing. The
        same events seen again, as by a watch that restarts, lead to the incident they led to before, closed or not.
        `playbook` answers the finding: another one than the incident has joins it.
        """
        agent = records.identifier(finding.agent, "agent")
        instance = records.identifier(finding.instance, "instance")
        occurrence, now = records.occurrence_of(finding), time.time_ns()
        with self.writing() as connection:
            again = connection.execute(_AGAIN, {"occurrence": occurrence, "agent": agent, "drill": drill}).scalar()
            if again is not None:
                return self._incident(connection, again), False
            row = connection.execute(
                _OPEN_ONE,
                {"agent": agent, "instance": instance, "drill": drill, "status": IncidentStatus.OPEN},
            ).one_or_none()
            if row is None:
                incident = self._open(connection, finding, records.bounded(playbook, 256), drill=drill, now=now)
            else:
                incident = str(row.id)
                if finding.severity > row.severity:
                    self._set(connection, incident, "severity", severity=int(finding.severity))
            digest = records.digest_of(finding)
            this = {"incident": incident, "digest": digest}
            if row is None or connection.execute(_KNOWN, this).scalar() is None:
                body = records.finding_body(finding)
                made = connection.execute(_FINDING, this | {"occurrence": occurrence, "body": body}).one()
                self._touch(connection, "finding", made.id, incident, "found", finding.detector, row=made)
                self._line(
                    connection, incident, Phase.IDENTIFY, f"finding {finding.detector}", finding.summary, at_ns=now
                )
                if row is not None and playbook not in ("", row.playbook):
                    self._join(connection, incident, records.bounded(playbook, 256))
            return self._incident(connection, incident), row is None

    def answered(self, those: Sequence[Finding], *, drill: bool = False) -> frozenset[int]:
        """Which of these, by their places, rest on events that led to an incident that is closed."""
        keys = [(records.occurrence_of(one), one.agent) for one in those]
        asked = {"occurrences": [key for key, _ in keys], "drill": drill, "status": IncidentStatus.CLOSED}
        with self.glancing() as connection:
            found = {(str(key), str(agent)) for key, agent in connection.execute(_ANSWERED, asked)}
        return frozenset(place for place, key in enumerate(keys) if key in found)

    def _join(self, connection: Connection, incident: str, playbook: str) -> None:
        """A further playbook, once, by the same transaction as the finding that brings it."""
        there = select(timeline.c.id).where(
            timeline.c.incident == incident, timeline.c.what == PLAYBOOK_JOINS, timeline.c.detail == playbook
        )
        if connection.execute(there.limit(1)).scalar() is None:
            self._line(connection, incident, Phase.IDENTIFY, PLAYBOOK_JOINS, playbook)

    def _open(self, connection: Connection, finding: Finding, playbook: str, *, drill: bool, now: int) -> str:
        day = time.strftime("%Y%m%d", time.gmtime(now / 1e9))
        while True:
            incident = f"INC-{day}-" + "".join(secrets.choice(_ID_ALPHABET) for _ in range(6))
            if connection.execute(_TAKEN, {"incident": incident}).scalar() is None:
                break
        row = connection.execute(
            _INCIDENT,
            {
                "id": incident,
                "agent": finding.agent,
                "instance": finding.instance,
                "status": IncidentStatus.OPEN,
                "phase": Phase.IDENTIFY,
                "severity": int(finding.severity),
                "playbook": playbook,
                "drill": drill,
                "orchestration": Orchestration.NONE,
                "opened_ns": now,
                "closed_ns": 0,
            },
        ).one()
        what = "drill opened" if drill else "incident opened"
        self._touch(connection, "incident", incident, incident, what, finding.detector, row=row)
        self._line(connection, incident, Phase.IDENTIFY, what, f"{finding.agent} ({finding.instance})", at_ns=now)
        return incident

    def incident(self, incident: str | Incident) -> Incident:
        """The incident as it stands, with findings, receipts and timeline in the order in which they came."""
        with self.reading() as connection:
            return self._incident(connection, id_of(incident))

    def agent_of(self, incident: str) -> str:
        """The agent that it is about, which never changes."""
        with self.glancing() as connection:
            return str(self._row(connection, incident).agent)

    def incidents(self, status: IncidentStatus | None = None) -> tuple[Incident, ...]:
        """All, or those of one status, oldest first."""
        query = select(incidents.c.id).order_by(incidents.c.opened_ns, incidents.c.id)
        if status is not None:
            query = query.where(incidents.c.status == status)
        with self.reading() as connection:
            return tuple(self._incident(connection, name) for name in connection.execute(query).scalars().all())

    def of_agent(self, agent: str, *, drill: bool = False, most: int = 32) -> tuple[Incident, ...]:
        """The newest incidents of one agent, whichever instance of it, oldest first; drills apart from real ones."""
        query = (
            select(incidents.c.id)
            .where(incidents.c.agent == agent, incidents.c.drill == drill)
            .order_by(incidents.c.opened_ns.desc(), incidents.c.id.desc())
            .limit(most)
        )
        with self.reading() as connection:
            names = connection.execute(query).scalars().all()
            return tuple(self._incident(connection, name) for name in reversed(names))

    def note(self, incident: str | Incident, phase: Phase, what: str, detail: str = "") -> None:
        """Add a line to the timeline."""
        with self.writing() as connection:
            self._row(connection, id_of(incident))
            self._line(connection, id_of(incident), phase, what, detail)

    def enter(self, incident: str | Incident, phase: Phase) -> None:
        """The response is in this phase now. Entering again, as a resumed playbook does, adds no second line."""
        with self.writing() as connection:
            row = self._row(connection, id_of(incident))
            what = f"phase {phase.value}"
            known = connection.execute(
                select(timeline.c.id).where(timeline.c.incident == row.id, timeline.c.what == what).limit(1)
            ).scalar()
            if known is None:
                self._line(connection, row.id, phase, what, phase.csf)
            if row.phase != phase:
                self._set(connection, row.id, what, phase=phase)

    def orchestration(self, incident: str | Incident, orchestration: Orchestration, detail: str = "") -> None:
        """Who drives the playbook from here on."""
        with self.writing() as connection:
            row = self._row(connection, id_of(incident))
            if row.orchestration != orchestration:
                what = f"orchestration {orchestration.value}"
                self._set(connection, row.id, what, orchestration=orchestration)
                self._line(connection, row.id, Phase(row.phase), what, detail)

    def close(self, incident: str | Incident, *, findings_seen: int | None = None) -> Incident:
        """Close it if every receipt is settled; otherwise it stays open and is returned so.

        With `findings_seen`, also only if no further finding has joined: its playbook has not answered that one.
        """
        with self.writing() as connection:
            current = self._incident(connection, id_of(incident))
            unsettled = [receipt for receipt in current.receipts if receipt.state not in SETTLED]
            grown = findings_seen is not None and len(current.findings) != findings_seen
            if current.status is IncidentStatus.CLOSED or unsettled or grown:
                return current
            now = time.time_ns()
            self._set(connection, current.id, "incident closed", status=IncidentStatus.CLOSED, closed_ns=now)
            self._line(
                connection, current.id, current.phase, "incident closed", f"{len(current.receipts)} steps", at_ns=now
            )
            return self._incident(connection, current.id)

    def _set(self, connection: Connection, incident: str, what: str, **values: Any) -> None:
        row = connection.execute(_SET, {"incident": incident, **values}).one()
        self._touch(connection, "incident", incident, incident, what, row=row)
