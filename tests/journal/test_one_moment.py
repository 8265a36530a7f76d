"""What is read in one transaction is of one moment, while others write: else a sound record looks tampered with."""

from __future__ import annotations

from typing import Any

import pytest

from clawback.journal import Journal, audit
from clawback.model import Finding, Phase, Severity

FINDING = Finding(
    detector="d", agent="agent", instance="agent-a", severity=Severity.HIGH, technique="T0001", resource="/r",
    policy="p", policy_version=1, title="t", summary="s", time_ns=1, events=("e",),
)  # fmt: skip


def test_a_record_that_is_written_while_it_is_looked_at_is_sound(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    incident, _ = journal.open_or_join(FINDING, playbook="book")
    receipt = journal.intend(incident, "a:1", "agent.freeze", Phase.CONTAIN, {}, "watch", captured={})
    rows = audit._verify_rows

    def meanwhile(*given: Any) -> None:
        journal.failed(receipt.id, "not seen")  # changes a row whose entries were read
        journal.note(incident, Phase.CONTAIN, "somebody writes", "")  # makes one that is in none of them
        rows(*given)

    with monkeypatch.context() as patched:
        patched.setattr(audit, "_verify_rows", meanwhile)
        assert journal.audit_verify()[1] == []
    assert journal.audit_verify()[1] == []


def test_an_incident_is_read_as_it_was_at_one_moment(journal: Journal) -> None:
    incident, _ = journal.open_or_join(FINDING, playbook="book")
    with journal.reading() as connection:
        before = journal._incident(connection, incident.id)
        journal.intend(incident, "a:1", "agent.freeze", Phase.CONTAIN, {}, "watch", captured={})
        assert journal._incident(connection, incident.id) == before
    assert len(journal.incident(incident.id).receipts) == 1


def test_a_writer_sees_what_whoever_was_before_it_wrote(journal: Journal) -> None:
    incident, _ = journal.open_or_join(FINDING, playbook="book")
    with journal.reading() as connection:
        journal._incident(connection, incident.id)
    receipt = journal.intend(incident, "a:1", "agent.freeze", Phase.CONTAIN, {}, "watch", captured={})
    with journal.writing() as connection:  # a connection that was read by may come back for writing
        assert [one.id for one in journal._incident(connection, incident.id).receipts] == [receipt.id]
        if connection.dialect.name == "postgresql":
            assert connection.exec_driver_sql("SHOW transaction_isolation").scalar() == "read committed"
