"""Settings of the response itself: evidence, recovery, drift."""

from __future__ import annotations

from pydantic import Field

from clawback.config.section import Section

__all__ = [
    "DriftSettings",
    "EvidenceSettings",
    "RecoverySettings",
]


class EvidenceSettings(Section):
    """`evidence:`: what is kept of an agent beside what the kernel shows."""

    transcripts: tuple[str, ...] = Field(
        ("/sandbox/.openclaw/agents/*/sessions/*.jsonl",),
        max_length=16,
        description="files in the sandbox in which agents write down what they were told and did; `*` within one part",
    )


class RecoverySettings(Section):
    """`recovery:`: how an agent is let go again, in stages."""

    observe_seconds: float = Field(
        10, ge=0, le=7 * 86_400, description="how long it runs with every call denied, and is watched"
    )
    restricted_seconds: float = Field(
        10, ge=0, le=7 * 86_400, description="how long it then may make only the calls it was seen to make before"
    )
    share: float = Field(0.5, gt=0, le=1, description="of its processors and processes, until it is let go in full")
    look_back_hours: float = Field(
        72, gt=0, le=24 * 366, description="how far back before the incident telemetry tells what is of use"
    )
    most: int = Field(1, ge=0, description="recoveries of one agent without a person; 0: each waits for one")
    within_hours: float = Field(24, gt=0, le=24 * 366, description="the time within which they are counted")


class DriftSettings(Section):
    """`drift:`: whether what was verified still holds."""

    interval_seconds: float = Field(60.0, ge=1, description="every verified containment and eradication is looked at")
    closed_hours: float = Field(24.0, ge=0, le=24 * 90, description="for how long after its incident was closed")
