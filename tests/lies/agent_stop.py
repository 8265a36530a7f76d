"""agent.stop: something lives in the group again, or nothing was ever killed."""

from __future__ import annotations

from lies.ladder import ladder

from clawback.actions.agent_stop import ACTION
from clawback.model import Level

CASE = ladder(
    ACTION,
    Level.STOP,
    more=lambda _: {"without_evidence": "what is told here is a lie"},
    holds=lambda scene: scene.stands_still(),
)
