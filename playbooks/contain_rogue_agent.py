"""Contain a rogue agent, take away what it holds, and bring it back clean: the NIST phases from top to bottom.

Whatever fails leaves the agent contained. It is let go only when it was seen contained, its evidence is safe, its tree
is gone, its credentials were seen refused, and the policy is the known-good one.
"""

from __future__ import annotations

from clawback.model import Incident, Phase
from clawback.playbook import Respond, playbook
from clawback.playbooks._contain import hold, tighten
from clawback.playbooks._credentials import close_credentials, discard_credentials
from clawback.playbooks._identify import look, policy_of, warranted
from clawback.playbooks._post_incident import review
from clawback.playbooks._recover import bring_back, restore_policy

__all__ = ["PLAYBOOK"]


@playbook(
    id="contain-rogue-agent",
    title="Contain a rogue agent, take its credentials, restore it",
    answers={
        "policy.unapproved-destination",
        "sandbox.escape-attempt",
        "sandbox.new-denial",
        "secrets.outside-allow-list",
    },
    runbook="contain-rogue-agent",
    covers={"violation-spike"},
)
def contain_rogue_agent(incident: Incident, respond: Respond) -> None:
    """Freeze and isolate first, so that evidence survives; only then replace what leaked; bring it back last."""
    with respond.phase(Phase.IDENTIFY):
        if not warranted(respond, incident):
            return

    with respond.phase(Phase.CONTAIN):
        held = hold(respond, incident)
        held = tighten(respond, incident, held)

    with respond.phase(Phase.IDENTIFY):  # it stands still: now there is time to look
        scope = look(respond, incident)

    with respond.phase(Phase.ERADICATE):
        refused = close_credentials(respond, incident, scope)
        restored = restore_policy(respond, incident, scope)

    with respond.phase(Phase.RECOVER):
        back = bring_back(respond, incident, scope, held, after=(*refused, *restored))

    with respond.phase(Phase.POST_INCIDENT):
        discard_credentials(respond, incident, scope, after=(back.validated,))
        review(respond, policy_of(incident, scope))


PLAYBOOK = contain_rogue_agent
