"""Reviews as files: `STATE/reviews/INCIDENT.md` and `INCIDENT.json`, written as tickets are."""

from __future__ import annotations

from pathlib import Path

from clawback.connectors.tickets import FileTickets

__all__ = ["FileReviews"]


class FileReviews:
    """`clawback.world.Reviews` in a folder."""

    def __init__(self, folder: Path) -> None:
        self._files = FileTickets(folder)

    def write(self, incident: str, *, markdown: str, json: str) -> dict[str, str]:
        """Create or replace; durable when this returns."""
        return _renamed(self._files.write(incident, markdown=markdown, jira=json))

    def read(self, incident: str) -> dict[str, str]:
        """The texts as they are on disk."""
        return _renamed(self._files.read(incident))


def _renamed(found: dict[str, str]) -> dict[str, str]:
    return {"json" if key == "jira" else key: value for key, value in found.items()}
