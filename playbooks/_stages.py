"""Let an agent go in stages: every call denied, then only those of use, then its policy itself. Watched in between.

What is not proved is held again, and is tried again by a resumed response; an agent that misbehaves is rolled back, and
stopped once there is evidence of it too.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from clawback.action import Action, Params
from clawback.actions.agent_relaunch import ACTION as RELAUNCH
from clawback.actions.agent_stop import ACTION as STOP
from clawback.actions.evidence_collect import ACTION as COLLECT_EVIDENCE
from clawback.actions.policy_validate import ACTION as VALIDATE
from clawback.actions.release_observe import ACTION as OBSERVE
from clawback.actions.release_restricted import ACTION as RESTRICTED
from clawback.actions.release_roll_back import ACTION as ROLL_BACK
from clawback.actions.release_watch import ACTION as WATCH
from clawback.model import Incident, Phase, Receipt, ReceiptState
from clawback.playbook import Respond
from clawback.playbooks._contain import hold_again
from clawback.playbooks._identify import who, why

__all__ = ["let_go"]

_STARTS = frozenset({OBSERVE.id, RELAUNCH.id})
_Make = Callable[[dict[str, Any], str, str], tuple[Action[Any], Params]]

# From the instance that is there, the one before it, and the reason. In observe-only nothing is replayed: everything is
# denied there, and many an agent has ended.
_STEPS: tuple[_Make, ...] = (
    lambda here, _before, _reason: (WATCH, WATCH.params(**here, stage="observe-only")),
    lambda here, _before, reason: (RESTRICTED, RESTRICTED.params(**here, reason=reason)),
    lambda here, _before, _reason: (WATCH, WATCH.params(**here, stage="restricted")),
    lambda here, _before, _reason: (VALIDATE, VALIDATE.params(agent=here["agent"], stage="restricted")),
    lambda here, _before, reason: (RELAUNCH, RELAUNCH.params(**here, reason=reason)),
    lambda here, before, _reason: (VALIDATE, VALIDATE.params(agent=here["agent"], replaced=before)),
)


def let_go(respond: Respond, incident: Incident, released: Receipt) -> Receipt:
    """The replay in the agent that was let go in full; else the step that it did not get past. The release itself where
    it is handed over: who holds the agent starts it.
    """
    if released.outcome.get("held_by"):
        return released
    reason = why(incident)
    last = respond(OBSERVE, OBSERVE.params(**who(incident), reason=reason), after=(released,))
    made, instance = [last], str(last.outcome.get("instance", ""))
    for make in _STEPS:
        if last.state is not ReceiptState.VERIFIED:
            break
        if last.action == WATCH.id and not last.outcome.get("clean"):
            return _roll_back(respond, incident, last, instance)
        before, instance = instance, str(last.outcome.get("instance", instance))
        action, params = make({"agent": incident.agent, "instance": instance}, before, reason)
        last = respond(action, params, after=(last,))
        made.append(last)
    if released.state is ReceiptState.VERIFIED and _unproved(last):
        with respond.phase(Phase.CONTAIN):
            hold_again(respond, incident, made, agent=incident.agent)
    return last


def _unproved(last: Receipt) -> bool:
    """It was looked at and is not so. What is merely pending is left to `clawback resume`; a step after the start that
    failed was not made: the agent is held already, or gone. So is one that was observed once and is refused since.
    """
    if last.state is ReceiptState.FAILED:
        return last.action in _STARTS and not (last.action == OBSERVE.id and last.outcome.get("instance"))
    return last.state is ReceiptState.UNVERIFIED


def _roll_back(respond: Respond, incident: Incident, watched: Receipt, instance: str) -> Receipt:
    here = {"agent": incident.agent, "instance": instance}
    reason = f"{incident.id}: {watched.outcome.get('because', '')}"[:500]
    with respond.phase(Phase.CONTAIN):
        rolled = respond(ROLL_BACK, ROLL_BACK.params(**here, reason=reason))
        evidence = respond(COLLECT_EVIDENCE, COLLECT_EVIDENCE.params(**here))
        respond(STOP, STOP.params(**here, reason=reason), after=(rolled, evidence))
    return rolled
