"""A connection to PostgreSQL that waits for an answer, and not for ever: a server that hangs does not answer.

libpq has a limit for connecting and none for what comes after it. The limits that a server keeps are kept by one that
is well; keep-alives tell of a host that is gone, and not of one whose server is stopped.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from typing import Any

import psycopg

__all__ = ["CONNECT_SECONDS", "Patient"]

CONNECT_SECONDS = 5
_ANSWER_SECONDS = 10.0  # what SQLite waits for a lock


class Patient(psycopg.Connection[Any]):
    """`psycopg.OperationalError` where one statement is not answered in time; the connection is closed then: whether it
    was done is not known, and its answer must not be taken for the next one's.
    """

    seconds = _ANSWER_SECONDS

    def wait(self, gen: Generator[Any, Any, Any], *limits: Any, **more: Any) -> Any:
        """As psycopg's own."""
        return super().wait(_within(gen, self.seconds, self.pgconn.finish), *limits, **more)


def _within(gen: Generator[Any, Any, Any], seconds: float, give_up: Callable[[], None]) -> Generator[Any, Any, Any]:
    """What `gen` does; psycopg comes by ten times a second with nothing in hand."""
    deadline = time.monotonic() + seconds
    try:
        wanted = next(gen)
        while True:
            got = yield wanted
            if not got and time.monotonic() > deadline:
                gen.close()
                give_up()
                raise psycopg.OperationalError(f"no answer within {seconds:g} s")
            wanted = gen.send(got)
    except StopIteration as over:
        return over.value
