"""The journal with several changes made one: a flush to disk costs as much as a whole reflex."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import Connection

from clawback.journal import Journal

__all__ = ["Ledger"]


class Ledger(Journal):
    """A `Journal` that can make several changes one."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self._mine = threading.local()

    @contextmanager
    def together(self) -> Iterator[None]:
        """What this thread changes inside becomes durable at the end, in one flush to disk: all of it or nothing."""
        with self.writing() as connection:
            self._mine.connection = connection
            try:
                yield
            finally:
                del self._mine.connection

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """A consistent view; inside `together`, of what was changed there too."""
        shared = getattr(self._mine, "connection", None)
        if shared is not None:
            yield shared
            return
        with super().reading() as connection:
            yield connection

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """One durable change, or a part of the one around it."""
        shared = getattr(self._mine, "connection", None)
        if shared is not None:
            yield shared
            return
        with super().writing() as connection:
            yield connection
