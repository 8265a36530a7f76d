"""A host or a person was compromised, and the agent misbehaves: agent, identity and host are one intrusion.

Whoever is on the host may start the agent anew, or use another that works for it: its whole tree is halted. The
credentials are refused at once, as they may be in other hands. What Clawback cannot do, cleaning the host and ending
the person's sessions, is asked of a person, and nothing comes back before it is confirmed.
"""

from __future__ import annotations

from clawback.actions.agents_halt import ACTION as HALT
from clawback.actions.agents_lift import ACTION as LIFT
from clawback.actions.handoff_confirm import ACTION as CONFIRM
from clawback.model import Incident, Phase
from clawback.playbook import Respond, playbook
from clawback.playbooks._cloud import allow_principals, deny_principals, mend_cloud
from clawback.playbooks._contain import hold, tighten
from clawback.playbooks._credentials import close_credentials, discard_credentials
from clawback.playbooks._identify import look, policy_of, review_access, warranted, why
from clawback.playbooks._post_incident import review
from clawback.playbooks._recover import bring_back, restore_policy

__all__ = ["PLAYBOOK"]

_ALERT = "intrusion."


@playbook(
    id="hybrid-intrusion",
    title="Host or person compromised, agent misused: agent, identity and host together",
    answers={"intrusion.host-and-agent"},
    runbook="hybrid-intrusion",
    covers={"contain-rogue-agent", "credential-misuse", "violation-spike"},
)
def hybrid_intrusion(incident: Incident, respond: Respond) -> None:
    """Agent and tree held, credentials refused, then people clean what is theirs; only then recovery."""
    with respond.phase(Phase.IDENTIFY):
        if not warranted(respond, incident):
            return
    alerts = ", ".join(dict.fromkeys(x.resource for x in incident.findings if x.detector.startswith(_ALERT)))

    with respond.phase(Phase.CONTAIN):
        held = hold(respond, incident)
        halted = respond(HALT, HALT.params(kind="tree", value=incident.agent, reason=why(incident)))
        scope = look(respond, incident)
        denied = deny_principals(respond, incident, scope)
        refused = close_credentials(respond, incident, scope)
        held = tighten(respond, incident, held)

    with respond.phase(Phase.IDENTIFY):
        done = review_access(respond, incident)

    with respond.phase(Phase.ERADICATE):
        mended = mend_cloud(respond, incident, scope, refused[-1])
        restored = restore_policy(respond, incident, scope)
        clean = respond(CONFIRM, CONFIRM.params(what="the host is clean or replaced", about=alerts[:200]))
        ended = respond(CONFIRM, CONFIRM.params(what="the person's sessions are ended", about=alerts[:200]))

    with respond.phase(Phase.RECOVER):
        lifted = respond(LIFT, LIFT.params(reason=why(incident)), after=(halted, clean, ended))
        after = (done, lifted, *refused, *mended, *restored)
        allowed = allow_principals(respond, denied, after=after)
        back = bring_back(respond, incident, scope, held, after=(*after, *allowed))

    with respond.phase(Phase.POST_INCIDENT):
        discard_credentials(respond, incident, scope, after=(back.validated,))
        review(respond, policy_of(incident, scope))


PLAYBOOK = hybrid_intrusion
