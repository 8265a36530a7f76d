"""The journal grows by less than 2 KB a receipt, and by the same for the thousandth incident as for the tenth."""

from __future__ import annotations

import sys
from itertools import pairwise
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent.parent.parent))

from benches.journal import STEPS, fill, size
from clawback.journal import Journal

LIMIT = 2048


@pytest.mark.slow
def test_at_most_two_kilobytes_a_receipt_and_linear(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    journal = Journal(f"sqlite:///{path}")
    fill(journal, 0, 10)
    sizes = [size(path)]
    for level in (110, 210):
        fill(journal, level - 100, level)
        sizes.append(size(path))
    first, second = (later - earlier for earlier, later in pairwise(sizes))
    for grown in (first, second):
        assert grown / (100 * STEPS) <= LIMIT
    assert second < 1.1 * first
    with journal.reading() as connection:  # whatever is asked of it goes by an index, however much there is
        plans = []
        for statement in (
            "SELECT * FROM receipts WHERE incident = 'x' AND key = 'y'",
            "SELECT * FROM receipts WHERE incident = 'x'",
            "SELECT * FROM timeline WHERE incident = 'x' ORDER BY id",
            "SELECT * FROM findings WHERE occurrence = 'x'",
            "SELECT * FROM incidents WHERE status = 'open' ORDER BY opened_ns",
            "SELECT * FROM receipts WHERE action = 'agent.freeze' AND intended_ns >= 1",
            "SELECT * FROM approvals WHERE state = 'pending'",
            "SELECT * FROM audit ORDER BY seq DESC LIMIT 1",
        ):
            plan = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}").all()
            plans.append((statement, " ".join(str(row[3]) for row in plan)))
    assert all("USING" in plan or "SCAN audit" in plan for _, plan in plans), plans
    journal.dispose()
