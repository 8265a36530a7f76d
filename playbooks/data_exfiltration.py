"""Data leaves, or far more of it is read than ever: cut the way out, count what left, replace what may be in it.

Isolation counts most here: each millisecond is data. Credentials are taken whether or not they were used, because what
was uploaded may hold them, and whoever has it needs no agent.
"""

from __future__ import annotations

from clawback.model import Incident, Phase
from clawback.playbook import Respond, playbook
from clawback.playbooks._contain import hold, tighten
from clawback.playbooks._credentials import close_credentials, discard_credentials
from clawback.playbooks._egress import block_destinations
from clawback.playbooks._identify import look, policy_of, review_access, warranted
from clawback.playbooks._post_incident import document, review
from clawback.playbooks._recover import bring_back, restore_policy

__all__ = ["PLAYBOOK"]


@playbook(
    id="data-exfiltration",
    title="Data exfiltration: cut the way out, count what left, replace what was in it",
    answers={"access.high-volume", "exfiltration.new-destination"},
    runbook="data-exfiltration",
    covers={"contain-rogue-agent", "violation-spike"},
)
def data_exfiltration(incident: Incident, respond: Respond) -> None:
    """Cut, count, replace; and write down for those whose data it was what left, and where to."""
    with respond.phase(Phase.IDENTIFY):
        if not warranted(respond, incident):
            review_access(respond, incident)  # more was read than ever: what, is what a person decides by
            return

    with respond.phase(Phase.CONTAIN):
        held = hold(respond, incident)
        block_destinations(respond, incident, "exfiltration.")
        held = tighten(respond, incident, held)

    with respond.phase(Phase.IDENTIFY):
        scope = look(respond, incident)
        left = review_access(respond, incident)
        document(respond, "data-exfiltration")

    with respond.phase(Phase.ERADICATE):
        refused = close_credentials(respond, incident, scope)
        restored = restore_policy(respond, incident, scope)

    with respond.phase(Phase.RECOVER):
        back = bring_back(respond, incident, scope, held, after=(left, *refused, *restored))

    with respond.phase(Phase.POST_INCIDENT):
        discard_credentials(respond, incident, scope, after=(back.validated,))
        document(respond, "data-exfiltration")
        review(respond, policy_of(incident, scope))


PLAYBOOK = data_exfiltration
