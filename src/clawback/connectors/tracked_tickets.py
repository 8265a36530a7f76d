"""Tickets as files, and in a tracker: the file is written first, so that a tracker that is down holds nothing up.

Which issue is the incident's is in `STATE/tickets/INCIDENT.tracker.json`. Before an issue is made, that is noted there:
a crash or silence in between leaves it open whether there is one. It is then searched for by its label; and as the
tracker's index lags behind, not finding it counts only once it has had time to show up.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clawback.connectors.tickets import FileTickets, replace
from clawback.errors import ClawbackError, NotEnforced, Unreachable
from clawback.reports import adf

if TYPE_CHECKING:
    from clawback.connectors.jira import Jira

__all__ = ["TrackedTickets"]

# Jira's search sees a new issue within seconds, as a rule; Atlassian names no bound.
_INDEXED_SECONDS = 60.0


class TrackedTickets:
    """`clawback.world.Tickets` in a folder and in Jira. `statuses`: phase of the incident → status to move to."""

    def __init__(
        self, folder: Path, tracker: Jira, statuses: dict[str, str], *, clock: Callable[[], float] = time.time
    ) -> None:
        self._files = FileTickets(folder)
        self._folder, self._tracker, self._statuses, self._clock = folder, tracker, statuses, clock

    def write(self, incident: str, *, markdown: str, jira: str) -> dict[str, str]:
        """Files first, then the issue. What the tracker does not answer is raised once the files are safe."""
        where = self._files.write(incident, markdown=markdown, jira=jira)
        request = json.loads(jira)
        about = request["properties"][0]["value"]
        at = f"{about['status']}, phase {about['phase']}"
        self._tracker.begin()
        key = self._known(incident)
        if key is None:
            key = self._make(incident, request)
        elif (there := self._tracker.read(key))["text"] != adf.request_words(request) or there["about"] != about:
            if there["about"].get("phase") != about["phase"]:
                # Before the update, which sets the phase: cut off in between, the comment is not made again.
                self._tracker.comment(key, f"{incident}: {at}", once=at)
            self._tracker.update(key, request)
        where |= {"tracker": key, "url": self._tracker.url(key)}
        if status := self._statuses.get(about["phase"]):
            where["status"] = self._tracker.move(key, status)
        return where

    def read(self, incident: str) -> dict[str, str]:
        """The files: the tracker is not asked."""
        return self._files.read(incident)

    def tracked(self, incident: str) -> str | None:
        """What the issue says (see `adf.words`)."""
        key = self._note(incident).get("key")
        if not key:
            return None
        self._tracker.begin()
        return str(self._tracker.read(str(key))["text"])

    def _known(self, incident: str) -> str | None:
        """The issue's key; None where there surely is none. `Unreachable` while that is open."""
        note = self._note(incident)
        if note.get("key"):
            return str(note["key"])
        found = self._tracker.find(incident)
        if found is not None:
            self._write_note(incident, {"key": found})
            return found
        waited = self._clock() - float(note.get("asked", 0))
        if note and 0 <= waited < _INDEXED_SECONDS:
            raise Unreachable(
                f"Jira was asked for an issue for {incident} {waited:.0f} s ago and did not answer; it shows none yet",
                hint="`clawback resume` looks again, and makes it if there is none",
            )
        return None

    def _make(self, incident: str, request: dict[str, Any]) -> str:
        self._write_note(incident, {"asked": self._clock()})
        try:
            key = self._tracker.create(request)
        except Unreachable:
            raise  # it may have been made
        except ClawbackError:
            self._path(incident).unlink(missing_ok=True)  # it was refused, and so not made
            raise
        self._write_note(incident, {"key": key})
        return key

    def _path(self, incident: str) -> Path:
        return self._folder / f"{incident}.tracker.json"

    def _note(self, incident: str) -> dict[str, Any]:
        try:
            note = json.loads(self._path(incident).read_text("utf-8"))
        except FileNotFoundError:
            return {}
        except (OSError, ValueError) as error:
            raise NotEnforced(
                f"{self._path(incident)} is not readable ({type(error).__name__})", hint="remove it: it is found again"
            ) from None
        return dict(note) if isinstance(note, dict) else {}

    def _write_note(self, incident: str, note: dict[str, Any]) -> None:
        try:
            replace(self._path(incident), json.dumps(note))
        except OSError as error:
            raise NotEnforced(f"{self._path(incident)}: {error.strerror}", hint="check space and permissions") from None
