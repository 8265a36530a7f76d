"""The audit record: whatever is changed behind the journal's back is found, wherever it is."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path
from random import Random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from clawback.errors import ClawbackError, InvalidInput
from clawback.journal import Journal
from clawback.journal.approvals import Need
from clawback.journal.audit import TABLES, Fault
from clawback.model import Enforcement, Finding, Level, Orchestration, Phase, Severity
from clawback.reports.audit_ocsf import to_ocsf
from clawback.services.postgres import Postgres

FINDING = Finding(
    detector="secrets.outside-allow-list", agent="agent-1", instance="agent-1-a", severity=Severity.HIGH,
    technique="T1552", resource="/secret", policy="p", policy_version=3, title="title", summary="summary", time_ns=5,
    events=("sandbox/w/1",), reflex=Level.ISOLATE, attack=("T1552",), attempts=(("open", "/secret"),),
)  # fmt: skip


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal.db"


@pytest.fixture
def journal(path: Path) -> Journal:
    """A journal with an incident's life in it."""
    journal = Journal(f"sqlite:///{path}")
    incident, _ = journal.open_or_join(FINDING, playbook="book")
    journal.orchestration(incident, Orchestration.PREFECT)
    journal.enter(incident, Phase.CONTAIN)
    receipt = journal.intend(incident, "a:1", "agent.freeze", Phase.CONTAIN, {"agent": "agent-1"}, "watch", captured={})
    journal.applied(receipt.id, {"frozen": 3})
    journal.verified(receipt.id, "3 processes frozen", Enforcement.FULL)
    need = Need(approvers=("ann", "bob"))
    asked = journal.ask(incident, "c:1", "a.b", Phase.RECOVER, {"x": 1}, need, shown=("- x",), actor="responder")
    journal.answer(asked.id, nonce=asked.nonce, who="ann", grant=True, reason="reviewed")
    journal.override(5, seconds=60, reason="all of them", by="ann")
    journal.end_override("bob")
    other = journal.intend(incident, "b:1", "ticket.write", Phase.POST_INCIDENT, {}, "watch")
    journal.pending(other.id, "does not answer")
    journal.failed(other.id, "no room")
    return journal


def faults(journal: Journal, noted: str = "") -> list[Fault]:
    return journal.audit_verify(noted=noted)[1]


def change(path: Path, statement: str, *values: object) -> int:
    with sqlite3.connect(path) as connection:
        changed = connection.execute(statement, values).rowcount
    connection.close()
    return changed


def test_a_sound_record_has_no_faults_and_says_who_did_what(journal: Journal) -> None:
    assert faults(journal) == []
    entries = list(journal.audit_entries())
    assert [entry.seq for entry in entries] == list(range(1, len(entries) + 1))
    frozen = next(entry for entry in entries if entry.what == "agent.freeze verified" and entry.kind == "receipt")
    assert frozen.actor == "watch"
    assert any(entry.what == "found" and entry.actor == FINDING.detector for entry in entries)
    count, _, head = journal.audit_verify()
    assert head == journal.audit_head() == f"{count}:{entries[-1].hash}"
    assert faults(journal, head) == []


CELLS = [
    (table, column)
    for table, columns in {
        "incidents": "agent instance status phase severity playbook drill orchestration opened_ns closed_ns",
        "findings": "incident digest occurrence body",
        "receipts": "incident key action phase state params captured outcome enforcement proof error actor attempts"
        " intended_ns captured_ns applied_ns verified_ns reverted_ns",
        "timeline": "incident at_ns phase what detail",
        "approvals": "incident key action phase digest nonce shown asked_by quorum approvers separate seconds asked_ns"
        " expires_ns state",
        "votes": "approval incident who grant reason channel at_ns",
        "overrides": "per_minute reason by set_ns until_ns ended_ns ended_by",
        "audit": "at_ns incident kind ref what actor digest hash",
    }.items()
    for column in columns.split()
]


def test_every_column_of_every_record_is_among_them() -> None:
    there = {(table.name, column.name) for table in TABLES.values() for column in table.columns if column.name != "id"}
    assert there == {cell for cell in CELLS if cell[0] != "audit"}


@pytest.mark.parametrize(("table", "column"), CELLS)
def test_a_change_of_any_column_of_any_row_is_found(journal: Journal, path: Path, table: str, column: str) -> None:
    key = "seq" if table == "audit" else "id"
    with sqlite3.connect(path) as connection:
        rows = connection.execute(f'SELECT {key}, "{column}" FROM {table}').fetchall()  # noqa: S608 - names from above
    connection.close()
    for ident, value in rows:
        changed: object
        match value:
            case bytes():
                changed = bytes([value[0] ^ 1]) + value[1:]
            case int():
                changed = value + 1 if column not in ("drill", "grant", "separate") else 1 - value
            case str() if column in ("params", "captured", "outcome", "body", "shown", "approvers"):
                changed = value + " "  # JSON all the same
            case str():
                changed = value[:-1] + chr(ord(value[-1]) ^ 1) if value else "x"
            case _:
                changed = "full"
        sql = f'UPDATE {table} SET "{column}" = ? WHERE {key} = ?'  # noqa: S608 - as above
        assert change(path, sql, changed, ident) == 1
        assert faults(journal), f"{table}.{column} of {ident}: {value!r} to {changed!r}"
        change(path, sql, value, ident)
        assert not faults(journal)


def test_a_boolean_that_is_neither_is_found(journal: Journal, path: Path) -> None:
    change(path, "UPDATE incidents SET drill = 2")
    assert faults(journal)


@pytest.mark.parametrize("table", ["findings", "receipts", "timeline", "votes", "overrides", "audit"])
def test_a_row_or_an_entry_taken_out_is_found(journal: Journal, path: Path, table: str) -> None:
    key = "seq" if table == "audit" else "id"
    assert change(path, f"DELETE FROM {table} WHERE {key} = (SELECT min({key}) FROM {table})") == 1  # noqa: S608
    assert faults(journal)


def test_a_row_put_in_from_outside_is_found(journal: Journal, path: Path) -> None:
    change(
        path,
        "INSERT INTO timeline (incident, at_ns, phase, what, detail)"
        " SELECT incident, 1, phase, 'x', '' FROM timeline LIMIT 1",
    )
    assert [fault.why for fault in faults(journal)] == ["is in no entry: it was put in from outside"]


def test_an_end_cut_off_with_its_rows_is_found_by_a_head_noted_elsewhere(journal: Journal, path: Path) -> None:
    before = journal.audit_head()
    incident = journal.incidents()[0]
    journal.note(incident, Phase.RECOVER, "said", "later")
    after = journal.audit_head()
    change(path, "DELETE FROM timeline WHERE what = 'said'")
    change(path, "DELETE FROM audit WHERE seq = (SELECT max(seq) FROM audit)")
    assert not faults(journal)  # as a chain alone sees it
    assert not faults(journal, before)
    assert "was noted and is gone" in faults(journal, after)[0].why
    number, _, value = before.partition(":")
    assert faults(journal, f"{number}:{value[:-1]}{'0' if value[-1] != '0' else '1'}")


@pytest.mark.parametrize("noted", ["x", "1:2", ":", "-1:" + "0" * 64])
def test_what_is_no_head_is_refused(journal: Journal, noted: str) -> None:
    with pytest.raises(InvalidInput, match="not a head"):
        journal.audit_verify(noted=noted)


def test_what_is_rolled_back_leaves_no_entry(journal: Journal) -> None:
    before = journal.audit_head()
    with pytest.raises(RuntimeError), journal.writing():
        raise RuntimeError
    assert journal.audit_head() == before


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(words=st.lists(st.text(max_size=600), min_size=1, max_size=6))
def test_any_text_is_entered_and_found_sound(journal: Journal, words: list[str]) -> None:
    incident = journal.incidents()[0]
    for word in words:
        journal.note(incident, Phase.RECOVER, word, word)
    assert faults(journal) == []


def test_a_journal_of_before_the_record_is_entered_as_it_stands(journal: Journal, path: Path) -> None:
    rows = sum(
        len(sqlite3.connect(path).execute(f"SELECT 1 FROM {table}").fetchall())  # noqa: S608 - names from here
        for table in ("incidents", "findings", "receipts", "timeline")
    )
    journal.dispose()
    for table in ("audit", "votes", "approvals", "overrides", "work"):
        change(path, f"DROP TABLE {table}")
    change(path, "DROP INDEX receipts_by_intent")
    change(path, "ALTER TABLE locks DROP COLUMN until_ns")
    change(path, "UPDATE alembic_version SET version_num = '0001'")
    again = Journal(f"sqlite:///{path}")
    assert again.audit_verify()[:2] == (rows, [])
    change(path, "UPDATE receipts SET proof = 'all is well' WHERE action = 'agent.freeze'")
    assert [fault.why for fault in faults(again)] == ["is not as its newest entry saw it"]


@pytest.mark.parts
@pytest.mark.slow
def test_a_change_is_found_on_postgresql(postgres: Postgres) -> None:
    journal = Journal(postgres.create("audited"))
    incident, _ = journal.open_or_join(FINDING, playbook="book")
    receipt = journal.intend(incident, "a:1", "agent.freeze", Phase.CONTAIN, {"b": 1, "a": 2}, "watch", captured={})
    journal.failed(receipt.id, "not seen")
    assert journal.audit_verify()[1] == []
    for statement in (
        "UPDATE receipts SET params = ('{ ' || substr(params::text, 2))::json",
        "UPDATE receipts SET error = ''",
    ):
        with journal.writing() as connection:
            connection.exec_driver_sql(statement)
        assert [fault.why for fault in faults(journal)] == ["is not as its newest entry saw it"]
    journal.dispose()


def test_the_record_goes_out_as_ocsf(journal: Journal) -> None:
    events = [json.loads(json.dumps(to_ocsf(entry))) for entry in journal.audit_entries()]
    assert {event["class_uid"] for event in events} == {3004}
    assert all(event["type_uid"] == 300400 + event["activity_id"] for event in events)
    assert [event["metadata"]["sequence"] for event in events] == list(range(1, len(events) + 1))
    assert {event["entity"]["type"] for event in events} == set(TABLES)


def _everything(path: Path) -> list[tuple[object, ...]]:
    with sqlite3.connect(path) as connection:
        connection.text_factory = bytes
        return [
            row
            for table in (*(table.name for table in TABLES.values()), "audit")
            for row in connection.execute(f"SELECT *, rowid FROM {table}").fetchall()  # noqa: S608 - names from here
        ]


@pytest.mark.slow
def test_any_changed_byte_of_the_file_is_found_or_changes_no_record(
    journal: Journal, path: Path, tmp_path: Path
) -> None:
    journal.dispose()
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA journal_mode = DELETE")
    connection.close()
    whole, before, random = path.read_bytes(), _everything(path), Random(20261128)
    found = 0
    copy = tmp_path / "copy.db"
    used = [at for at, byte in enumerate(whole) if byte]  # most of a small file is room that nothing is in
    for _ in range(200):
        at, bit = random.choice(used), 1 << random.randrange(8)
        copy.write_bytes(whole[:at] + bytes([whole[at] ^ bit]) + whole[at + 1 :])
        try:
            changed = Journal(f"sqlite:///{copy}")
            faulty = bool(changed.audit_verify()[1])
            changed.dispose()
        except ClawbackError:
            faulty = True  # it does not open, or cannot be read: that is noticed too
        found += faulty
        if not faulty:
            assert _everything(copy) == before, f"byte {at}, bit {bit}"
        for left in tmp_path.glob("copy.db*"):
            left.unlink()
    assert found > 50
