"""agent.isolate: loopback, and with it the way to the gateway, is raised again, or was never taken away."""

from __future__ import annotations

from lies.case import Lie
from lies.ladder import in_its_network, ladder

from clawback.actions.agent_isolate import ACTION
from clawback.model import Level

_UP = "from clawback.drills.surroundings import loopback_up; loopback_up()"

CASE = ladder(
    ACTION,
    Level.ISOLATE,
    Lie(what="its loopback is raised", drifts=True, behind=lambda scene, _: in_its_network(scene, _UP), races=True),
)
