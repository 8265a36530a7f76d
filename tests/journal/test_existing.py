"""Asked for a journal that is there: one that is not is said and not made, and what cannot be looked at is not called
missing.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from clawback.errors import NotFound, Unreachable
from clawback.journal import Journal


def test_an_empty_database_is_no_journal_and_stays_empty(url: str) -> None:
    for _ in range(2):
        with pytest.raises(NotFound):
            Journal(url, make=False)
    Journal(url).dispose()
    there = Journal(url, make=False)
    assert there.audit_verify()[0] == 0
    there.dispose()


def test_nothing_is_written_to_a_file_that_is_none(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    path.touch()
    with pytest.raises(NotFound):
        Journal(f"sqlite:///{path}", make=False)
    assert [(one.name, one.stat().st_size) for one in tmp_path.iterdir()] == [("journal.db", 0)]


def test_a_damaged_file_is_not_called_missing(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    path.write_bytes(b"no database at all" * 100)
    with pytest.raises(Unreachable):
        Journal(f"sqlite:///{path}", make=False)


def test_a_server_that_is_down_is_not_called_empty(tmp_path: Path) -> None:
    pytest.importorskip("psycopg", reason="the driver is an extra")
    with pytest.raises(Unreachable):
        Journal(f"postgresql+psycopg://clawback@/clawback?host={tmp_path}", make=False)
