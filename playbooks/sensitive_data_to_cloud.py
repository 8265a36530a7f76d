"""Sensitive data went to a cloud model: hold the agent, audit the routes, and document it for compliance.

The agent asked and the router let it: so what is mended is the routing, and the agent's credentials stay as they are,
unless something else was found that says it is rogue.
"""

from __future__ import annotations

from clawback.actions.routing_audit import ACTION as AUDIT
from clawback.model import Incident, Phase, Receipt
from clawback.playbook import Respond, playbook
from clawback.playbooks._contain import hold
from clawback.playbooks._credentials import close_credentials, discard_credentials
from clawback.playbooks._egress import queue_sensitive
from clawback.playbooks._identify import look, policy_of, warranted
from clawback.playbooks._post_incident import document, review
from clawback.playbooks._recover import bring_back, restore_policy

__all__ = ["PLAYBOOK"]

_ROUTING = "routing."


@playbook(
    id="sensitive-data-to-cloud",
    title="Sensitive data went to a cloud model: hold, audit the routes, document",
    answers={"routing.sensitive-to-cloud"},
    runbook="sensitive-data-to-cloud",
)
def sensitive_data_to_cloud(incident: Incident, respond: Respond) -> None:
    """No query more leaves; what left is counted from the record; the routes go back to the reviewed ones."""
    with respond.phase(Phase.IDENTIFY):
        if not warranted(respond, incident):
            return
    rogue = any(not finding.detector.startswith(_ROUTING) for finding in incident.findings)

    with respond.phase(Phase.CONTAIN):
        held = hold(respond, incident)
        queue_sensitive(respond, incident)  # the same wrong route is open to everybody

    with respond.phase(Phase.IDENTIFY):
        scope = look(respond, incident)
        count = len(incident.findings)
        mine = respond(AUDIT, AUDIT.params(agent=incident.agent, findings=count))
        respond(AUDIT, AUDIT.params(findings=count))
        document(respond, "data-routing")

    with respond.phase(Phase.ERADICATE):
        refused: tuple[Receipt, ...] = close_credentials(respond, incident, scope) if rogue else ()
        restored = restore_policy(respond, incident, scope)

    with respond.phase(Phase.RECOVER):
        back = bring_back(respond, incident, scope, held, after=(mine, *refused, *restored), reissue=rogue)

    with respond.phase(Phase.POST_INCIDENT):
        if rogue:
            discard_credentials(respond, incident, scope, after=(back.validated,))
        document(respond, "data-routing")
        review(respond, policy_of(incident, scope))


PLAYBOOK = sensitive_data_to_cloud
