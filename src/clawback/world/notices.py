"""Messages to people: what is said of an incident, and the channels that carry it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

__all__ = ["Delivery", "Notice", "Notifier", "Outcome"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Notice:
    """A short message about one incident. Every text is one line of visible characters, bounded and redacted.

    `severity` is a word of `clawback.model.Severity`; `lines` say what was done and seen; `over` ends what the first
    message began, where a channel knows such a thing; `at` is ISO 8601, the first rogue event.
    """

    incident: str
    title: str
    severity: str
    agent: str
    status: str
    at: str
    drill: bool
    over: bool
    lines: tuple[str, ...]


class Outcome(StrEnum):
    """What became of a message. silent: it may have arrived or not, and is sent again."""

    DELIVERED = "delivered"
    REFUSED = "refused"
    SILENT = "silent"


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """One channel's answer, without its address."""

    outcome: Outcome
    answer: str


class Notifier(Protocol):
    """The configured channels."""

    def channels(self) -> Mapping[str, str]:
        """Name → kind."""
        ...

    def send(self, notice: Notice, *, key: str, channels: tuple[str, ...]) -> Mapping[str, Delivery]:
        """Send to each, all at the same time and bounded in time; never raises for a channel's sake.

        At least once: what was delivered under the same `key` is not sent again, unless a crash hid that it was.
        """
        ...
