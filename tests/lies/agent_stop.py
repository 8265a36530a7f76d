"""agent.stop: its hold is lifted, or nothing was ever killed."""

from __future__ import annotations

import dataclasses

from lies.ladder import ladder

from clawback.actions.agent_stop import ACTION
from clawback.model import Level

CASE = dataclasses.replace(
    ladder(
        ACTION,
        Level.STOP,
        more=lambda _: {"without_evidence": "what is told here is a lie"},
        holds=lambda scene: scene.stands_still(),
    ),
    never_drifts="its group goes with it, and whoever is started anew is another instance",
)
