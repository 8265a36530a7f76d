"""Policy decisions are slow: report what the policy's rules cost, and stay open until it decides in time again.

Nobody is contained: a slow engine denies nothing wrongly and allows nothing wrongly. It is an agent's way to make
itself less watched only if something else is found too, and then that is its own incident.
"""

from __future__ import annotations

from clawback.actions.policy_complexity import ACTION as COMPLEXITY
from clawback.actions.policy_timely import ACTION as TIMELY
from clawback.model import Incident, Phase
from clawback.playbook import Respond, playbook
from clawback.playbooks._post_incident import review, ticket

__all__ = ["PLAYBOOK"]


@playbook(
    id="policy-latency",
    title="Policy decisions are slow: report the rules and their costs",
    answers={"policy.latency"},
    runbook="policy-latency",
)
def policy_latency(incident: Incident, respond: Respond) -> None:
    """For each slow policy: its rules, which of them decide, what to change; a person changes it."""
    policies = tuple(dict.fromkeys(finding.policy for finding in incident.findings if finding.policy))

    with respond.phase(Phase.IDENTIFY):
        for name in policies:
            respond(COMPLEXITY, COMPLEXITY.params(policy=name))
        ticket(respond)

    with respond.phase(Phase.RECOVER):
        for name in policies:
            respond(TIMELY, TIMELY.params(policy=name))

    with respond.phase(Phase.POST_INCIDENT):
        review(respond, policies[0] if policies else "")


PLAYBOOK = policy_latency
