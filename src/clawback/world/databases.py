"""Databases as an agent reaches them: whether a login is let in, and what it left open."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

__all__ = ["Databases"]


class Databases(Protocol):
    """Any database that agents log in to.

    `place` is what a credential's identifiers say: `engine` (`postgresql`), `host`, `port`, `database`, `sslmode`,
    `sslrootcert`. What is no answer to the login (no network, no room, another fault) is `Unreachable`.
    """

    def logs_in(self, place: Mapping[str, str], user: str, password: str) -> tuple[bool, str]:
        """Log in as the agent would, and leave: (accepted, what the database answered)."""
        ...

    def end_sessions(self, place: Mapping[str, str], user: str, password: str) -> str:
        """End all other sessions of that user, as the user itself; the database's time (ISO 8601) when it was asked."""
        ...

    def sessions_before(self, place: Mapping[str, str], user: str, password: str, at: str) -> int:
        """How many other sessions of that user are open that began before a time of the database's."""
        ...
