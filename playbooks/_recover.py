"""Recover: the old tree ends, the hold is lifted, the agent starts anew, and its rogue calls are seen denied."""

from __future__ import annotations

from dataclasses import dataclass

from clawback.actions.agent_relaunch import ACTION as RELAUNCH
from clawback.actions.agent_release import ACTION as RELEASE
from clawback.actions.agent_stop import ACTION as STOP
from clawback.actions.policy_restore import ACTION as RESTORE_POLICY
from clawback.actions.policy_validate import ACTION as VALIDATE
from clawback.model import Incident, Phase, Receipt, ReceiptState
from clawback.playbook import Respond
from clawback.playbooks._contain import Held, hold_again
from clawback.playbooks._credentials import reissue_credentials
from clawback.playbooks._identify import policy_of, who, why

__all__ = ["Recovered", "bring_back", "restore_policy"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Recovered:
    """How far it came: each may be failed for what it depended on."""

    released: Receipt
    relaunched: Receipt
    validated: Receipt


def restore_policy(respond: Respond, incident: Incident, scope: Receipt) -> tuple[Receipt, ...]:
    """Return the policy to its last known-good version; nothing where the agent runs under none."""
    policy = policy_of(incident, scope)
    if not policy:
        return ()
    return (respond(RESTORE_POLICY, RESTORE_POLICY.params(policy=policy, reason=why(incident))),)


def bring_back(
    respond: Respond, incident: Incident, scope: Receipt, held: Held, *, after: tuple[Receipt, ...]
) -> Recovered:
    """Let the agent go only when it was seen contained, all of `after` is verified, and nothing is left of its tree."""
    reason = why(incident)
    stopped = respond(STOP, STOP.params(**who(incident), reason=reason), after=(held.evidence,))
    clean = (*held.receipts, scope, stopped, *after)
    reissued = reissue_credentials(respond, incident, scope, after=clean)
    released = respond(RELEASE, RELEASE.params(**who(incident), reason=reason), after=(*clean, *reissued))
    relaunched = respond(RELAUNCH, RELAUNCH.params(**who(incident), reason=reason), after=(released,))
    validate = VALIDATE.params(agent=incident.agent, replaced=incident.instance)
    validated = respond(VALIDATE, validate, after=(relaunched,))
    if released.state is ReceiptState.VERIFIED:
        with respond.phase(Phase.CONTAIN):
            hold_again(respond, incident, relaunched, validated)
    return Recovered(released=released, relaunched=relaunched, validated=validated)
