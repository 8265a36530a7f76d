"""Many violations within an hour: freeze, review what the agent was told and what it tried, and contain if confirmed.

A spike is an injected agent or a policy that is too tight. Freezing costs seconds and is taken back without loss;
taking credentials is not. So nothing beyond the freeze happens before the review or a person has decided which it is.
"""

from __future__ import annotations

from clawback.actions.instructions_review import ACTION as REVIEW_INSTRUCTIONS
from clawback.model import Incident, Phase, ReceiptState
from clawback.playbook import Respond, playbook
from clawback.playbooks._contain import hold, stand_still, tighten
from clawback.playbooks._credentials import close_credentials, discard_credentials
from clawback.playbooks._identify import look, policy_of, warranted, who
from clawback.playbooks._post_incident import review, ticket
from clawback.playbooks._recover import bring_back, restore_policy

__all__ = ["PLAYBOOK"]


@playbook(
    id="violation-spike",
    title="Violation spike: freeze, review the instructions, contain if confirmed",
    answers={"sandbox.violation-spike"},
    runbook="violation-spike",
)
def violation_spike(incident: Incident, respond: Respond) -> None:
    """Frozen while it is looked at; the rest only for an agent that is steered by somebody else."""
    with respond.phase(Phase.IDENTIFY):
        if not warranted(respond, incident):
            return

    with respond.phase(Phase.CONTAIN):
        stand_still(respond, incident)

    with respond.phase(Phase.IDENTIFY):
        told = REVIEW_INSTRUCTIONS.params(**who(incident), findings=len(incident.findings))
        verdict = respond(REVIEW_INSTRUCTIONS, told)
        scope = look(respond, incident)
        if verdict.state is not ReceiptState.VERIFIED or not verdict.outcome["confirmed"]:
            # Undecided, it stays frozen and the incident open; harmless, a person has let it go already.
            if verdict.state is ReceiptState.VERIFIED:
                review(respond, policy_of(incident, scope))
            else:
                ticket(respond)
            return

    with respond.phase(Phase.CONTAIN):
        held = hold(respond, incident)
        held = tighten(respond, incident, held)

    with respond.phase(Phase.ERADICATE):
        refused = close_credentials(respond, incident, scope)
        restored = restore_policy(respond, incident, scope)

    with respond.phase(Phase.RECOVER):
        back = bring_back(respond, incident, scope, held, after=(verdict, *refused, *restored))

    with respond.phase(Phase.POST_INCIDENT):
        discard_credentials(respond, incident, scope, after=(back.validated,))
        review(respond, policy_of(incident, scope))


PLAYBOOK = violation_spike
