"""Documents to leave for whoever audits, as actions see them."""

from __future__ import annotations

from typing import Protocol

__all__ = ["Documents"]


class Documents(Protocol):
    """One document of each name for each incident, replaced as a whole."""

    def write(self, incident: str, name: str, text: str) -> str:
        """Create or replace; returns where it is."""
        ...

    def read(self, incident: str, name: str) -> str:
        """As it stands; empty where there is none."""
        ...
