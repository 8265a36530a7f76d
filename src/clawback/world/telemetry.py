"""The telemetry as actions see it: what was written about an agent, or under a policy, in a span of time."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Protocol

from clawback.model import Event, Source

__all__ = ["Sighted", "Telemetry"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sighted:
    """Events, oldest first. `complete`: nothing within the span was left out, by age of the files or by bounds."""

    events: tuple[Event, ...]
    complete: bool


class Telemetry(Protocol):
    """What the core and the gateway wrote. Every string in it may have been chosen by an agent."""

    def events(
        self,
        *,
        sources: Collection[Source] = tuple(Source),
        agent: str = "",
        instance: str = "",
        policy: str = "",
        since_ns: int,
        until_ns: int = 0,
        most: int = 20_000,
    ) -> Sighted:
        """In these streams, of this agent, instance and policy (each where it is named), from `since_ns` on and before
        `until_ns`; the newest `most`. `Unreachable` where it cannot be read.
        """
        ...
