"""The same tests on both databases: a file of SQLite's, and a PostgreSQL server where there is one."""

from __future__ import annotations

import shutil
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from clawback.journal import Journal
from clawback.services.postgres import Postgres, find


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """One server for all of them."""
    if find() is None:
        pytest.skip("there is no PostgreSQL here: apt-get install postgresql")
    folder = Path(tempfile.mkdtemp(prefix="cb-pg-", dir="/tmp"))
    with Postgres(folder) as server:
        yield server
    shutil.rmtree(folder)


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=[pytest.mark.parts, pytest.mark.slow])])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Of an empty database."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'journal.db'}"
    server: Postgres = request.getfixturevalue("postgres")
    return server.create(f"journal_{uuid.uuid4().hex[:12]}")


@pytest.fixture
def journal(url: str) -> Iterator[Journal]:
    """A journal on it."""
    one = Journal(url)
    yield one
    one.dispose()
