"""Runs actions and playbooks through the journal: intent before effect, proof before claim, nothing done twice.

Response(journal, world, actor="watch", incident_id=incident.id).execute(freeze, params, phase=Phase.CONTAIN)
"""

from __future__ import annotations

from clawback.response.accept import accept, unsettled_step
from clawback.response.recheck import recheck
from clawback.response.respond import Responder
from clawback.response.response import Response, step_key
from clawback.response.run import Run, run_playbook, unfinished, unsettled
from clawback.response.undo import Fate, Undone, plan_undo, undo

__all__ = [
    "Fate",
    "Responder",
    "Response",
    "Run",
    "Undone",
    "accept",
    "plan_undo",
    "recheck",
    "run_playbook",
    "step_key",
    "undo",
    "unfinished",
    "unsettled",
    "unsettled_step",
]
