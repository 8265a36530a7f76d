"""agent.freeze: thawed by the kernel's own file, or joined by a process that moves, or never frozen."""

from __future__ import annotations

from lies.case import Lie
from lies.ladder import ladder, thaw

from clawback.actions.agent_freeze import ACTION
from clawback.model import Level

CASE = ladder(
    ACTION,
    Level.FREEZE,
    Lie(what="it is thawed", drifts=True, behind=thaw, races=True),
    holds=lambda scene: scene.stands_still(),
    undone=lambda scene: not scene.stands_still(2.0),
)
