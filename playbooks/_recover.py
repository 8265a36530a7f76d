"""Recover: the old tree ends, the hold is lifted, the agent comes back in stages, its rogue calls are seen denied.

Once without a person; an agent that goes rogue again within the time that the settings name stays stopped until one
permits it (`recovery.check`, `recovery.permit`).
"""

from __future__ import annotations

from dataclasses import dataclass

from clawback.actions.agent_release import ACTION as RELEASE
from clawback.actions.agent_stop import ACTION as STOP
from clawback.actions.policy_restore import ACTION as RESTORE_POLICY
from clawback.actions.policy_tighten import ACTION as TIGHTEN
from clawback.actions.recovery_check import ACTION as CHECK
from clawback.actions.recovery_permit import ACTION as PERMIT
from clawback.actions.release_roll_back import ACTION as ROLL_BACK
from clawback.model import Incident, Phase, Receipt, ReceiptState
from clawback.playbook import Respond
from clawback.playbooks._contain import Held
from clawback.playbooks._credentials import reissue_credentials
from clawback.playbooks._identify import policy_of, who, why
from clawback.playbooks._related import release_related
from clawback.playbooks._stages import let_go

__all__ = ["Recovered", "bring_back", "restore_policy", "tighten_policy"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Recovered:
    """How far it came. `validated` is the step that shows the agent as it should be, or else the one that stood in the
    way: failed, pending, or the roll-back.
    """

    released: Receipt
    validated: Receipt


def restore_policy(respond: Respond, incident: Incident, scope: Receipt) -> tuple[Receipt, ...]:
    """Return the policy to its last known-good version, and make it narrower where that is not enough; nothing where
    the agent runs under none.
    """
    policy = policy_of(incident, scope)
    if not policy:
        return ()
    restored = respond(RESTORE_POLICY, RESTORE_POLICY.params(policy=policy, reason=why(incident)))
    return (restored, *tighten_policy(respond, incident, restored))


def tighten_policy(respond: Respond, incident: Incident, restored: Receipt) -> tuple[Receipt, ...]:
    """Where the known-good version allows a rogue call: suggest one that does not, for a person to say yes to."""
    if restored.state is not ReceiptState.VERIFIED:
        return ()
    policy = str(restored.params["policy"])
    if restored.outcome.get("still_allows"):
        return (respond(TIGHTEN, TIGHTEN.params(policy=policy, reason=why(incident))),)
    respond.skip(TIGHTEN, f"the known-good version of {policy} allows no rogue call that is on record")
    return ()


def bring_back(
    respond: Respond,
    incident: Incident,
    scope: Receipt,
    held: Held,
    *,
    after: tuple[Receipt, ...],
    reissue: bool = True,
) -> Recovered:
    """Let the agent go only when it was seen contained, all of `after` is verified, and nothing is left of its tree.

    `reissue`: its credentials were closed, and it is given new ones; those that were contained with it go after it.
    """
    reason = why(incident)
    checked = respond(CHECK, CHECK.params(**who(incident)))
    rolled: tuple[Receipt, ...] = ()
    if checked.outcome.get("earlier"):
        with respond.phase(Phase.CONTAIN):
            rolled = (respond(ROLL_BACK, ROLL_BACK.params(**who(incident), reason=reason)),)
    stopped = respond(STOP, STOP.params(**who(incident), reason=reason), after=(held.evidence,))
    clean = (*held.receipts, scope, *rolled, stopped, *after, checked)
    if checked.state is ReceiptState.VERIFIED and not checked.outcome.get("automatic"):
        clean = (*clean, respond(PERMIT, PERMIT.params(**who(incident)), after=clean))
    reissued = reissue_credentials(respond, incident, scope, after=clean) if reissue else ()
    released = respond(RELEASE, RELEASE.params(**who(incident), reason=reason), after=(*clean, *reissued))
    validated = let_go(respond, incident, released)
    if reissue:
        release_related(respond, incident, scope, after=(*after, validated))
    return Recovered(released=released, validated=validated)
