"""The local model is away: sensitive queries wait, none falls back to the cloud, until it answers again.

What must not happen is seen from the record: that no sensitive query went to the cloud meanwhile. If one did, its own
incident contains the agent; here it is counted and documented.
"""

from __future__ import annotations

from clawback.actions.routing_audit import ACTION as AUDIT
from clawback.actions.routing_recovered import ACTION as RECOVERED
from clawback.model import Incident, Phase, ReceiptState
from clawback.playbook import Respond, playbook
from clawback.playbooks._egress import queue_sensitive
from clawback.playbooks._post_incident import document, ticket

__all__ = ["PLAYBOOK"]


@playbook(
    id="local-model-unavailable",
    title="Local model unavailable: sensitive queries wait, none goes to the cloud",
    answers={"routing.local-model-unavailable"},
    runbook="local-model-unavailable",
)
def local_model_unavailable(incident: Incident, respond: Respond) -> None:
    """Count what was routed meanwhile; stay open until the model is there again, and count once more."""
    count, last = len(incident.findings), max((x.time_ns for x in incident.findings), default=incident.opened_ns)

    with respond.phase(Phase.CONTAIN):
        queue_sensitive(respond, incident)

    with respond.phase(Phase.IDENTIFY):
        meanwhile = respond(AUDIT, AUDIT.params(findings=count))
        ticket(respond)

    with respond.phase(Phase.RECOVER):
        there = respond(RECOVERED, RECOVERED.params(after_ns=last))

    with respond.phase(Phase.POST_INCIDENT):
        if meanwhile.outcome.get("leaks", 0) and there.state is ReceiptState.VERIFIED:
            document(respond, "data-routing")
        ticket(respond)


PLAYBOOK = local_model_unavailable
