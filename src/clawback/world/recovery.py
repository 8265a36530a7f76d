"""The terms on which an agent is let go again, as actions see them; `recovery:` in the settings."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["RecoveryTerms"]


@dataclass(frozen=True, slots=True, kw_only=True)
class RecoveryTerms:
    """observe_seconds, restricted_seconds   how long each stage is watched; 0: looked at once
    share             of processors and processes while the release is staged
    look_back_hours   before the incident, in which telemetry tells what calls are of use
    most              recoveries of one agent without a person within `within_hours`
    """

    observe_seconds: float = 0.0
    restricted_seconds: float = 0.0
    share: float = 0.5
    look_back_hours: float = 72.0
    most: int = 1
    within_hours: float = 24.0
