"""The journal, as several threads of this process write to it: one waits for the other's lock, not for a timer.

SQLite lets a second writer sleep and look again, for longer each time, up to 100 ms; among threads a plain lock hands
over at once. Other processes are still waited for the database's own way.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import Connection

from clawback.journal import Journal

__all__ = ["Ledger"]


class Ledger(Journal):
    """A `Journal` whose writers within the process stand in line."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self._turn = threading.Lock()

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """One durable change; not to be entered again from inside."""
        with self._turn, super().writing() as connection:
            yield connection
