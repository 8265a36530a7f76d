"""Where incident reviews go, as actions see it."""

from __future__ import annotations

from typing import Protocol

__all__ = ["Reviews"]


class Reviews(Protocol):
    """One review an incident, replaced as a whole at each write."""

    def write(self, incident: str, *, markdown: str, json: str) -> dict[str, str]:
        """Create or replace it; where it is: paths by `markdown`, `json`. `NotEnforced` where it cannot be kept."""
        ...

    def read(self, incident: str) -> dict[str, str]:
        """The texts as they stand, by the same keys; empty where there is none."""
        ...
