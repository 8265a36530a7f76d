"""The journal: one incident for one launch, each change durable and bounded, states in order, no secrets on disk."""

from __future__ import annotations

import dataclasses
import json
import multiprocessing
import os
import re
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from sqlalchemy import create_engine, delete, insert, inspect, make_url, text

from clawback.errors import InvalidInput, NotFound, Refused, Unreachable
from clawback.journal import SETTLED, Journal, migrations
from clawback.journal.locks import LEASE_SECONDS, database_ns
from clawback.journal.schema import locks
from clawback.journal.states import FROM
from clawback.model import (
    Enforcement,
    Finding,
    Incident,
    IncidentStatus,
    Level,
    Orchestration,
    Phase,
    Receipt,
    ReceiptState,
    Severity,
)

FINDING = Finding(
    detector="secrets.outside-allow-list",
    agent="agent-1",
    instance="agent-1-a",
    severity=Severity.HIGH,
    technique="T1552",
    resource="/secret",
    policy="p",
    policy_version=3,
    title="title",
    summary="summary",
    time_ns=5,
    events=("sandbox/w/1", "sandbox/w/2"),
    reflex=Level.ISOLATE,
    attack=("T1552",),
    attempts=(("open", "/secret"),),
)


def test_a_finding_comes_back_as_it_went_in(journal: Journal) -> None:
    incident, opened = journal.open_or_join(FINDING, playbook="book", drill=True)
    assert opened
    assert re.fullmatch(r"INC-\d{8}-[0-9A-Z]{6}", incident.id)
    assert journal.incident(incident.id).findings == (FINDING,)
    assert incident.drill
    assert incident.playbook == "book"
    assert incident.orchestration is Orchestration.NONE


def test_joins_the_same_launch_and_knows_a_finding_again(journal: Journal) -> None:
    first, _ = journal.open_or_join(FINDING, playbook="book")
    worse = dataclasses.replace(FINDING, resource="/other", severity=Severity.CRITICAL, events=("e",))
    joined, opened = journal.open_or_join(worse, playbook="book")
    assert (joined.id, opened) == (first.id, False)
    assert joined.severity is Severity.CRITICAL
    reworded = dataclasses.replace(FINDING, summary="in other words", events=("later",))
    assert len(journal.open_or_join(reworded, playbook="book")[0].findings) == 2
    other, opened = journal.open_or_join(dataclasses.replace(FINDING, instance="agent-1-b"), playbook="book")
    assert opened
    assert other.id != first.id


def test_a_drill_hides_no_real_incident(journal: Journal) -> None:
    drill, _ = journal.open_or_join(FINDING, playbook="book", drill=True)
    real, opened = journal.open_or_join(dataclasses.replace(FINDING, events=("e",)), playbook="book")
    assert opened
    assert real.id != drill.id


def test_the_same_events_open_nothing_after_the_close_and_new_ones_do(journal: Journal) -> None:
    incident, _ = journal.open_or_join(FINDING, playbook="book")
    journal.close(incident)
    again, opened = journal.open_or_join(FINDING, playbook="book")
    assert (again.id, again.status, opened) == (incident.id, IncidentStatus.CLOSED, False)
    later, opened = journal.open_or_join(dataclasses.replace(FINDING, events=("later",)), playbook="book")
    assert opened
    assert later.id != incident.id


@pytest.mark.parametrize("bad", ["", "x" * 257, "a\nb", "a\0b"])
def test_an_agent_is_never_cut_to_another_ones_name(journal: Journal, bad: str) -> None:
    with pytest.raises(InvalidInput, match="identifier"):
        journal.open_or_join(dataclasses.replace(FINDING, agent=bad), playbook="book")


def test_hostile_text_is_bounded_and_storable(journal: Journal) -> None:
    hostile = "\ud800\0[bold]" + "x" * 1_000_000
    incident, _ = journal.open_or_join(
        dataclasses.replace(FINDING, summary=hostile, resource=hostile, attack=("a",) * 1000), playbook="book"
    )
    (finding,) = journal.incident(incident.id).findings
    assert len(finding.summary) == 4096
    assert finding.summary.startswith("\\ud800\\x00[bold]")
    assert len(finding.attack) == 64
    journal.note(incident, Phase.CONTAIN, hostile, hostile)
    assert max(len(line.detail) for line in journal.incident(incident.id).timeline) == 4096


def test_long_resources_that_differ_late_are_two_findings(journal: Journal) -> None:
    for end in "ab":
        finding = dataclasses.replace(FINDING, resource="/" + "x" * 10_000 + end, events=(end,))
        incident, _ = journal.open_or_join(finding, playbook="book")
    assert len(incident.findings) == 2


def test_secrets_do_not_reach_the_disk(journal: Journal, tmp_path: Path) -> None:
    incident, _ = journal.open_or_join(
        dataclasses.replace(FINDING, summary="Bearer abcdefghijklmnopqrstuvwx"), playbook="book"
    )
    secret = "hvs.CAESIJabcdefghijklmnopqrstuvwxyz0123456789"
    receipt = journal.intend(incident, "k", "a.b", Phase.CONTAIN, {"note": secret}, "me", captured={"token": secret})
    journal.pending(receipt.id, f"could not use {secret}")
    journal.applied(receipt.id, {"deep": [{"x": f"password={secret}"}]})
    journal.unverified(receipt.id, f"saw {secret}", Enforcement.NONE)
    journal.dispose()
    for path in tmp_path.iterdir():
        assert secret.encode() not in path.read_bytes()
        assert b"abcdefghijklmnopqrstuvwx" not in path.read_bytes()


@pytest.mark.parametrize("bad", [{"x": object()}, {"x": float("nan")}, {"x": "y" * (1 << 21)}])
def test_what_json_cannot_hold_is_refused(journal: Journal, bad: dict[str, object]) -> None:
    incident, _ = journal.open_or_join(FINDING, playbook="book")
    with pytest.raises(InvalidInput, match="cannot be journalled"):
        journal.intend(incident, "k", "a.b", Phase.CONTAIN, {}, "me", captured=bad)
    assert journal.incident(incident.id).receipts == ()


def test_the_first_capture_stays(journal: Journal) -> None:
    incident, _ = journal.open_or_join(FINDING, playbook="book")
    receipt = journal.intend(incident, "k", "a.b", Phase.CONTAIN, {}, "me")
    assert receipt.captured_ns == 0
    journal.captured(receipt.id, {"before": 1})
    journal.captured(receipt.id, {"before": 2})
    again = journal.intend(incident, "k", "a.b", Phase.CONTAIN, {}, "me", captured={"before": 3})
    assert again.captured == {"before": 1}
    assert (again.id, again.attempts) == (receipt.id, 2)


_TO = {
    ReceiptState.APPLIED: lambda journal, receipt: journal.applied(receipt, {}),
    ReceiptState.VERIFIED: lambda journal, receipt: journal.verified(receipt, "seen", Enforcement.FULL),
    ReceiptState.UNVERIFIED: lambda journal, receipt: journal.unverified(receipt, "not seen", Enforcement.NONE),
    ReceiptState.FAILED: lambda journal, receipt: journal.failed(receipt, "no"),
    ReceiptState.REVERT_PENDING: lambda journal, receipt: journal.revert_pending(receipt),
    ReceiptState.REVERTED: lambda journal, receipt: journal.reverted(receipt, "seen"),
    ReceiptState.REVERT_FAILED: lambda journal, receipt: journal.revert_failed(receipt, "no"),
    ReceiptState.ALREADY_ABSENT: lambda journal, receipt: journal.already_absent(receipt, "seen"),
    ReceiptState.ORPHANED: lambda journal, receipt: journal.orphaned(receipt, "gone"),
    ReceiptState.ACCEPTED: lambda journal, receipt: journal.accepted(receipt, "somebody: so be it"),
}
_WAY = {
    ReceiptState.AWAITING: (),
    ReceiptState.INTENDED: (),
    ReceiptState.APPLIED: (ReceiptState.APPLIED,),
    ReceiptState.VERIFIED: (ReceiptState.APPLIED, ReceiptState.VERIFIED),
    ReceiptState.UNVERIFIED: (ReceiptState.APPLIED, ReceiptState.UNVERIFIED),
    ReceiptState.FAILED: (ReceiptState.FAILED,),
    ReceiptState.REVERT_PENDING: (ReceiptState.REVERT_PENDING,),
    ReceiptState.REVERTED: (ReceiptState.REVERT_PENDING, ReceiptState.REVERTED),
    ReceiptState.REVERT_FAILED: (ReceiptState.REVERT_PENDING, ReceiptState.REVERT_FAILED),
    ReceiptState.ALREADY_ABSENT: (ReceiptState.REVERT_PENDING, ReceiptState.ALREADY_ABSENT),
    ReceiptState.ORPHANED: (ReceiptState.REVERT_PENDING, ReceiptState.ORPHANED),
    ReceiptState.ACCEPTED: (ReceiptState.FAILED, ReceiptState.ACCEPTED),
}


def _began(journal: Journal, incident: Incident, state: ReceiptState) -> Receipt:
    if state is ReceiptState.AWAITING:
        return journal.awaiting(incident, "k", "a.b", Phase.CONTAIN, {}, "me", "awaits APR-1")
    return journal.intend(incident, "k", "a.b", Phase.CONTAIN, {}, "me")


@pytest.mark.parametrize("start", ReceiptState)
def test_states_follow_the_table(journal: Journal, start: ReceiptState) -> None:
    for number, (target, move) in enumerate(_TO.items()):
        incident, _ = journal.open_or_join(
            dataclasses.replace(FINDING, instance=f"i-{number}", events=(str(number),)), playbook="book"
        )
        receipt = _began(journal, incident, start)
        for state in _WAY[start]:
            receipt = _TO[state](journal, receipt.id)
        assert receipt.state is start
        if start in FROM[target]:
            assert move(journal, receipt.id).state is target
        else:
            with pytest.raises(Refused):
                move(journal, receipt.id)
            assert journal.incident(incident.id).receipts[0].state is start


@pytest.mark.parametrize("state", ReceiptState)
def test_closes_only_when_all_is_settled(journal: Journal, state: ReceiptState) -> None:
    incident, _ = journal.open_or_join(FINDING, playbook="book")
    receipt = _began(journal, incident, state)
    for step in _WAY[state]:
        _TO[step](journal, receipt.id)
    assert (journal.close(incident).status is IncidentStatus.CLOSED) == (state in SETTLED)


def test_does_not_close_over_a_finding_that_joined(journal: Journal) -> None:
    incident, _ = journal.open_or_join(FINDING, playbook="book")
    journal.open_or_join(dataclasses.replace(FINDING, resource="/new", events=("n",)), playbook="book")
    assert journal.close(incident, findings_seen=1).status is IncidentStatus.OPEN
    assert journal.close(incident, findings_seen=2).status is IncidentStatus.CLOSED


def test_entering_a_phase_again_adds_no_line(journal: Journal) -> None:
    incident, _ = journal.open_or_join(FINDING, playbook="book")
    for phase in (Phase.CONTAIN, Phase.RECOVER, Phase.CONTAIN):
        journal.enter(incident, phase)
    after = journal.incident(incident.id)
    assert after.phase is Phase.CONTAIN
    assert [line.what for line in after.timeline].count("phase contain") == 1


def test_unknown_ids(journal: Journal) -> None:
    with pytest.raises(NotFound):
        journal.incident("INC-1")
    with pytest.raises(NotFound):
        journal.applied(7, {})
    with pytest.raises(NotFound):
        journal.note("INC-1", Phase.CONTAIN, "x")


def test_bad_urls(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput):
        Journal("no url")
    with pytest.raises(InvalidInput, match="memory"):
        Journal("sqlite://")
    (tmp_path / "folder").mkdir()
    with pytest.raises(Unreachable):
        Journal(f"sqlite:///{tmp_path / 'folder'}")


def _open_and_write(url: str, number: int) -> None:
    journal = Journal(url)
    finding = dataclasses.replace(FINDING, resource=f"/{number}", events=(str(number),))
    incident, _ = journal.open_or_join(finding, playbook="book")
    for step in range(5):
        receipt = journal.intend(incident, f"{number}-{step}", "a.b", Phase.CONTAIN, {}, "me", captured={})
        journal.applied(receipt.id, {})
        journal.verified(receipt.id, "seen", Enforcement.FULL)


def test_many_processes_make_and_share_one_journal(url: str) -> None:
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=_open_and_write, args=(url, number)) for number in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    (incident,) = Journal(url).incidents()
    assert len(incident.findings) == 4
    assert len(incident.receipts) == 20
    assert {receipt.state for receipt in incident.receipts} == {ReceiptState.VERIFIED}


def test_threads_share_a_journal(journal: Journal) -> None:
    incident, _ = journal.open_or_join(FINDING, playbook="book")
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda step: journal.note(incident, Phase.CONTAIN, f"{step}"), range(200)))
    assert len(journal.incident(incident.id).timeline) == 202


def test_a_newer_journal_is_left_alone(url: str, journal: Journal) -> None:
    with journal.writing() as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(InvalidInput, match="schema 9999"):
        Journal(url)


def _has_the_declared_tables(journal: Journal) -> None:
    from alembic.autogenerate import compare_metadata
    from alembic.migration import MigrationContext

    from clawback.journal.schema import metadata

    with journal.reading() as connection:
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []


def _described(journal: Journal) -> dict[str, list[str]]:
    """Each table's columns, keys, constraints and indexes, as the database tells them."""
    with journal.reading() as connection:
        seen = inspect(connection)
        return {
            table: sorted(
                json.dumps(part, default=str, sort_keys=True)
                for parts in (
                    seen.get_columns(table),
                    [seen.get_pk_constraint(table)],
                    seen.get_foreign_keys(table),
                    seen.get_unique_constraints(table),
                    seen.get_check_constraints(table),
                    seen.get_indexes(table),
                )
                for part in parts
            )
            for table in seen.get_table_names()
        }


def test_migrations_make_what_a_new_journal_has(journal: Journal, url: str) -> None:
    _has_the_declared_tables(journal)
    new = _described(journal)
    assert {"incidents", "receipts", "audit", "alembic_version"} <= new.keys()
    journal.dispose()
    _migrate(url, "downgrade", "base")
    _migrate(url, "upgrade", "head")
    migrated = Journal(url)
    _has_the_declared_tables(migrated)
    assert _described(migrated) == new
    migrated.dispose()


def test_lock_is_one_at_a_time(journal: Journal, url: str) -> None:
    with journal.lock("agent-1"):
        assert journal.lock_owner("agent-1") == os.getpid()
        with pytest.raises(Refused, match="another response"), Journal(url).lock("agent-1", timeout=0.05):
            pass
        with journal.lock("agent-2"):
            pass
    assert journal.lock_owner("agent-1") == 0
    with journal.lock("agent-1"):
        pass


def test_a_dead_owners_lock_is_taken_over(journal: Journal, url: str) -> None:
    journal.dispose()
    child = os.fork()
    if child == 0:
        with Journal(url).lock("agent-1"):
            os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)
    with journal.lock("agent-1"):
        assert journal.lock_owner("agent-1") == os.getpid()


def _elsewhere(journal: Journal, agent: str, seconds: float) -> None:
    """Another host's lock on the agent, whose lease has so long to run."""
    with journal.writing() as connection:
        until = database_ns(connection) + round(seconds * 1e9)
        row = {"agent": agent, "token": "t", "host": "other.example", "boot": "b 1", "pid": 1, "started": 1}
        connection.execute(insert(locks).values(**row, taken_ns=0, until_ns=until))


def test_another_hosts_lock_stands_for_its_lease_and_no_longer(journal: Journal) -> None:
    _elsewhere(journal, "agent-1", 3600)
    assert journal.lock_owner("agent-1") == 1
    with pytest.raises(Refused, match="another response"), journal.lock("agent-1"):
        pass
    _elsewhere(journal, "agent-2", -0.001)
    assert journal.lock_owner("agent-2") == 0
    with journal.lock("agent-2") as held:
        assert not held.lost


def test_a_lock_that_was_taken_away_is_known_to_be_lost(journal: Journal) -> None:
    with journal.lock("agent-1") as held:
        held.renew(journal)
        assert not held.lost
        with journal.writing() as connection:
            connection.execute(delete(locks))
        _elsewhere(journal, "agent-1", 3600)
        held.renew(journal)
        assert held.lost
    assert journal.lock_owner("agent-1") == 1, "another's lock is not let go"


def test_a_lock_that_could_not_be_renewed_in_time_is_lost(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    with journal.lock("agent-1") as held:
        later = time.monotonic() + LEASE_SECONDS + 1
        with monkeypatch.context() as patch:
            patch.setattr(time, "monotonic", lambda: later)
            assert held.lost


def test_work_is_due_until_it_rests_and_again_when_asked(journal: Journal) -> None:
    incident, _ = journal.open_or_join(FINDING, playbook="book")
    assert journal.due() == (incident.id,)
    turn = journal.turn(incident.id)
    assert turn is not None
    assert (turn.asked, turn.tries) == (0, 0)
    journal.rest(turn, seconds=None, tries=0, pending=1)
    assert journal.due() == ()
    assert journal.turn(incident.id) is None
    journal.enqueue(incident.id)
    again = journal.turn(incident.id)
    assert again is not None
    journal.enqueue(incident.id)  # while it is worked on
    journal.rest(again, seconds=None, tries=0, pending=1)
    assert journal.due() == (incident.id,), "who asked meanwhile is heard"
    last = journal.turn(incident.id)
    assert last is not None
    journal.rest(last, seconds=3600, tries=3, pending=1)
    assert journal.due() == ()
    with pytest.raises(NotFound):
        journal.enqueue("INC-1")


def test_real_and_severe_work_is_due_first_and_not_while_somebody_does_it(journal: Journal) -> None:
    def opened(agent: str, severity: Severity, *, drill: bool = False) -> str:
        finding = dataclasses.replace(FINDING, agent=agent, instance=agent, severity=severity, events=(agent,))
        return journal.open_or_join(finding, playbook="book", drill=drill)[0].id

    drill = opened("a", Severity.CRITICAL, drill=True)
    mild, severe = opened("b", Severity.MEDIUM), opened("c", Severity.CRITICAL)
    assert journal.due() == (severe, mild, drill)
    with journal.lock("c"):
        assert journal.due() == (mild, drill)
    _elsewhere(journal, "b", 3600)
    assert journal.due() == (severe, drill)


def test_a_journal_that_does_not_answer_is_unreachable(journal: Journal, url: str) -> None:
    incident, _ = journal.open_or_join(FINDING, playbook="book")
    if url.startswith("sqlite"):
        with journal.writing() as connection:
            connection.exec_driver_sql("DROP TABLE timeline")
    else:
        database = make_url(url).database
        with create_engine(make_url(url).set(database="postgres")).connect() as connection:
            connection.exec_driver_sql(f"ALTER DATABASE {database} ALLOW_CONNECTIONS false")
            connection.commit()
            ended = text("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = :database")
            connection.execute(ended, {"database": database})
    with pytest.raises(Unreachable, match="the journal does not answer"):
        journal.note(incident, Phase.CONTAIN, "x")


def _migrate(url: str, way: str, to: str) -> None:
    """As `clawback.journal.database` does it."""
    from alembic import command
    from alembic.config import Config

    engine = create_engine(url)
    with engine.connect() as connection, connection.begin():
        config = Config()
        config.set_main_option("script_location", str(Path(migrations.__file__).parent))
        config.set_main_option("path_separator", "os")
        config.attributes["connection"] = connection
        getattr(command, way)(config, to)
    engine.dispose()


def test_migrations_go_back_step_by_step_and_forth_again(journal: Journal, url: str) -> None:
    journal.dispose()
    for version in ("0004", "0003", "0002", "0001", "base"):
        _migrate(url, "downgrade", version)
        if version != "base":
            _migrate(url, "upgrade", "head")
            Journal(url).dispose()
            _migrate(url, "downgrade", version)
    again = Journal(url)
    _has_the_declared_tables(again)
    again.open_or_join(FINDING, playbook="book")
    assert again.audit_verify()[1] == []
    again.dispose()


def test_going_back_throws_no_record_away(journal: Journal, url: str) -> None:
    journal.open_or_join(FINDING, playbook="book")
    journal.override(0, seconds=60, reason="a test", by="alice")
    journal.dispose()
    _migrate(url, "downgrade", "0004")  # what is being done is not a record
    for version in ("0003", "0001", "base"):
        with pytest.raises(Refused, match="not empty"):
            _migrate(url, "downgrade", version)
    again = Journal(url)
    assert len(again.incidents()) == 1
    assert again.audit_verify()[1] == []
    again.dispose()


def test_a_write_is_durable_whatever_the_databases_default_is(journal: Journal, url: str) -> None:
    if url.startswith("sqlite"):
        with journal.writing() as connection:
            assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == 2  # FULL
            assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"
        return
    with create_engine(url).connect() as connection:
        connection.exec_driver_sql(f"ALTER DATABASE {make_url(url).database} SET synchronous_commit = off")
        connection.commit()
    again = Journal(url)
    with again.reading() as connection:
        assert connection.exec_driver_sql("SHOW synchronous_commit").scalar() == "off"
    with again.writing() as connection:
        assert connection.exec_driver_sql("SHOW synchronous_commit").scalar() == "on"
    again.dispose()


def _count_up(url: str, path: Path) -> None:
    journal = Journal(url)
    for _ in range(10):
        with journal.lock("agent-1", timeout=120):
            seen = int(path.read_text())
            journal.lock_owner("agent-1")  # long enough for another to come between, if it could
            path.write_text(str(seen + 1))


def test_of_several_processes_one_at_a_time_has_an_agent(url: str, tmp_path: Path) -> None:
    path = tmp_path / "count"
    path.write_text("0")
    Journal(url).dispose()
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=_count_up, args=(url, path)) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
        assert process.exitcode == 0
    assert path.read_text() == "30"
