"""Incidents that Prefect may not have as they ended: in which order it is told of them, and how often."""

from __future__ import annotations

import dataclasses
import threading
import time

__all__ = ["Unshown"]

_MOST = 1_000  # the newest
_REFUSALS = 5


@dataclasses.dataclass(slots=True)
class _Entry:
    until: float
    refused: int = 0
    looked_at: bool = False


class Unshown:
    """Noted by any thread; asked for, one at a time, by the one that tells Prefect."""

    def __init__(self) -> None:
        self._entries: dict[str, _Entry] = {}
        self._changing = threading.Lock()

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def behind(self) -> bool:
        """Some were never looked at."""
        with self._changing:
            return any(not entry.looked_at for entry in self._entries.values())

    def note(self, incident: str, seconds: float) -> None:
        """To be looked at once, and again and again for so many seconds from now on."""
        with self._changing:
            self._entries.pop(incident, None)
            self._entries[incident] = _Entry(time.monotonic() + seconds)
            if len(self._entries) > _MOST:
                del self._entries[next(iter(self._entries))]

    def turn(self) -> str:
        """Whose turn it is, those first that had none; nobody's: "". It goes behind the others at once, so that none
        that fails holds those up.
        """
        with self._changing:
            new = (incident for incident, entry in self._entries.items() if not entry.looked_at)
            incident = next(new, None) or next(iter(self._entries), "")
            if incident:
                entry = self._entries[incident] = self._entries.pop(incident)
                entry.looked_at = True
            return incident

    def told(self, incident: str) -> None:
        """Prefect has it as it was at its turn: looked at again if it may be told otherwise, or was noted since."""
        with self._changing:
            entry = self._entries.get(incident)
            if entry is not None and entry.looked_at and time.monotonic() > entry.until:
                del self._entries[incident]

    def refused(self, incident: str) -> bool:
        """Prefect answered, and did not take it. True when that was the last try."""
        with self._changing:
            entry = self._entries.get(incident)
            if entry is None:
                return False
            entry.refused += 1
            if entry.refused < _REFUSALS:
                return False
            del self._entries[incident]
            return True
