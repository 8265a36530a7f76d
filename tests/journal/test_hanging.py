"""A PostgreSQL that takes what is asked and answers nothing: said in time, and gone on with when it is well again."""

from __future__ import annotations

import os
import signal

import pytest
from sqlalchemy import text

from clawback.errors import Unreachable
from clawback.journal import Journal
from clawback.services.postgres import Postgres

pytestmark = [pytest.mark.parts, pytest.mark.slow]


def test_a_server_that_hangs_does_not_answer(postgres: Postgres, monkeypatch: pytest.MonkeyPatch) -> None:
    from clawback.journal.patient import Patient

    journal = Journal(postgres.create("hanging"))
    monkeypatch.setattr(Patient, "seconds", 0.5)
    with journal.reading() as connection:
        backend = connection.execute(text("SELECT pg_backend_pid()")).scalar_one()
    os.kill(backend, signal.SIGSTOP)
    try:
        with pytest.raises(Unreachable, match="no answer within"):
            journal.incidents()
    finally:
        os.kill(backend, signal.SIGCONT)
    assert journal.incidents() == ()
    with journal.reading() as connection:
        assert connection.execute(text("SELECT pg_backend_pid()")).scalar_one() != backend, (
            "its late answer is nobody's"
        )
    journal.dispose()
