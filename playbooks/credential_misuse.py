"""A credential is used by somebody else, or meant for another host: close the credentials first, the agent besides.

Freezing the agent does not stop a thief: the credential works from anywhere. So refusing it is containment here, and
waits for no approval; evidence comes before it, in the same breath, because a refused credential shows nothing more.
Users and roles in AWS are denied everything first, which is one call, and until all that came of them is closed; what
the agent changed in IAM is put back when a person has said yes.
"""

from __future__ import annotations

from clawback.model import Incident, Phase
from clawback.playbook import Respond, playbook
from clawback.playbooks._cloud import allow_principals, deny_principals, mend_cloud
from clawback.playbooks._contain import hold, tighten
from clawback.playbooks._credentials import close_credentials, discard_credentials
from clawback.playbooks._identify import look, policy_of, review_access, warranted
from clawback.playbooks._post_incident import review
from clawback.playbooks._recover import bring_back, restore_policy

__all__ = ["PLAYBOOK"]


@playbook(
    id="credential-misuse",
    title="Credential misuse: refuse the credentials at once, then look",
    answers={"credentials.misused"},
    runbook="credential-misuse",
    covers={"contain-rogue-agent", "violation-spike"},
)
def credential_misuse(incident: Incident, respond: Respond) -> None:
    """Freeze, evidence, refuse; only then tighten what holds the agent, and find out who used what from where."""
    with respond.phase(Phase.IDENTIFY):
        if not warranted(respond, incident):
            return

    with respond.phase(Phase.CONTAIN):
        held = hold(respond, incident)
        scope = look(respond, incident)  # whom to refuse is read from it
        denied = deny_principals(respond, incident, scope)
        refused = close_credentials(respond, incident, scope)
        held = tighten(respond, incident, held)

    with respond.phase(Phase.IDENTIFY):
        used = review_access(respond, incident)

    with respond.phase(Phase.ERADICATE):
        mended = mend_cloud(respond, incident, scope, refused[-1])
        restored = restore_policy(respond, incident, scope)

    with respond.phase(Phase.RECOVER):
        clean = (used, *refused, *mended, *restored)
        allowed = allow_principals(respond, denied, after=clean)
        back = bring_back(respond, incident, scope, held, after=(*clean, *allowed))

    with respond.phase(Phase.POST_INCIDENT):
        discard_credentials(respond, incident, scope, after=(back.validated,))
        review(respond, policy_of(incident, scope))


PLAYBOOK = credential_misuse
