"""A journal, and incidents in it of which nothing is known but that they were opened."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from clawback.journal import Journal
from clawback.model import Finding, Incident, Severity


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    opened = Journal(f"sqlite:///{tmp_path / 'journal.db'}")
    yield opened
    opened.dispose()


@pytest.fixture
def opened(journal: Journal) -> Callable[[int], Incident]:
    """Opens one, of the agent with that number."""

    def open_one(number: int) -> Incident:
        finding = Finding(
            detector="d", agent=f"agent-{number}", instance=f"agent-{number}-a", severity=Severity.HIGH,
            technique="T0001", resource="/r", policy="p", policy_version=1, title="t", summary="s", time_ns=1,
            events=(f"{number}",),
        )  # fmt: skip
        return journal.open_or_join(finding, playbook="book")[0]

    return open_one
