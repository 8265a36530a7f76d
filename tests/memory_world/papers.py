"""What is written for people: reviews, documents, tickets."""

from __future__ import annotations

import json

from clawback.errors import Unreachable
from clawback.reports.adf import request_words

__all__ = ["MemoryDocuments", "MemoryReviews", "MemoryTickets"]


class MemoryReviews:
    """Texts by incident and form; `loses` forgets what is written."""

    def __init__(self) -> None:
        self.texts: dict[str, dict[str, str]] = {}
        self.loses = False

    def write(self, incident: str, *, markdown: str, json: str) -> dict[str, str]:
        if not self.loses:
            self.texts[incident] = {"markdown": markdown, "json": json}
        return {"markdown": f"/reviews/{incident}.md", "json": f"/reviews/{incident}.json"}

    def read(self, incident: str) -> dict[str, str]:
        return dict(self.texts.get(incident, {}))


class MemoryDocuments:
    """Documents; `loses` makes a write vanish."""

    def __init__(self) -> None:
        self.texts: dict[tuple[str, str], str] = {}
        self.loses = False

    def write(self, incident: str, name: str, text: str) -> str:
        if not self.loses:
            self.texts[incident, name] = text
        return f"{incident}/{name}.json"

    def read(self, incident: str, name: str) -> str:
        return self.texts.get((incident, name), "")


class MemoryTickets:
    """Tickets; `loses` makes a write vanish, `tracks` keeps an issue as well, `down` makes its tracker silent."""

    def __init__(self) -> None:
        self.texts: dict[str, dict[str, str]] = {}
        self.issues: dict[str, str] = {}
        self.loses = self.tracks = self.down = False

    def write(self, incident: str, *, markdown: str, jira: str) -> dict[str, str]:
        if not self.loses:
            self.texts[incident] = {"markdown": markdown, "jira": jira}
        where = {"markdown": f"{incident}.md", "jira": f"{incident}.json"}
        if not self.tracks:
            return where
        if self.down:
            raise Unreachable("the tracker does not answer")
        self.issues[incident] = request_words(json.loads(jira))
        return where | {"tracker": "SEC-1"}

    def read(self, incident: str) -> dict[str, str]:
        return self.texts.get(incident, {})

    def tracked(self, incident: str) -> str | None:
        if self.down:
            raise Unreachable("the tracker does not answer")
        return self.issues.get(incident)
