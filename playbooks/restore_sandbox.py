"""A sandbox is down: halt all agents, find out why, restore the one that is down, and only then let the others go on.

What took one sandbox down may be at work on the next: so nobody runs until each has been read back as launched. The
halt costs the others time and nothing else; ending it is for a person, because it is for all of them at once.
"""

from __future__ import annotations

from clawback.actions.agents_halt import ACTION as HALT
from clawback.actions.agents_lift import ACTION as LIFT
from clawback.actions.sandbox_check import ACTION as CHECK
from clawback.model import Incident, Phase
from clawback.playbook import Respond, playbook
from clawback.playbooks._contain import hold, tighten
from clawback.playbooks._credentials import close_credentials, discard_credentials
from clawback.playbooks._identify import look, policy_of, review_access, warranted, why
from clawback.playbooks._post_incident import review
from clawback.playbooks._recover import bring_back, restore_policy

__all__ = ["PLAYBOOK"]


@playbook(
    id="restore-sandbox",
    title="A sandbox is down: halt all agents, restore it, let the others go on",
    answers={"sandbox.down"},
    runbook="restore-sandbox",
    covers={"contain-rogue-agent", "violation-spike"},
)
def restore_sandbox(incident: Incident, respond: Respond) -> None:
    """The agent that is down first, then every other; credentials too, since nobody saw what it did meanwhile."""
    with respond.phase(Phase.IDENTIFY):
        if not warranted(respond, incident):
            return

    with respond.phase(Phase.CONTAIN):
        held = hold(respond, incident)
        halted = respond(HALT, HALT.params(kind="as-set", value=incident.agent, reason=why(incident)))
        held = tighten(respond, incident, held)

    with respond.phase(Phase.IDENTIFY):
        scope = look(respond, incident)
        review_access(respond, incident)

    with respond.phase(Phase.ERADICATE):
        refused = close_credentials(respond, incident, scope)
        restored = restore_policy(respond, incident, scope)

    with respond.phase(Phase.RECOVER):
        sound = respond(CHECK, CHECK.params(but=incident.agent), after=(halted,))
        # Before the relaunch: while the halt stands, nothing that it means may start.
        lifted = respond(LIFT, LIFT.params(reason=why(incident)), after=(sound,))
        back = bring_back(respond, incident, scope, held, after=(*refused, *restored, sound, lifted))

    with respond.phase(Phase.POST_INCIDENT):
        discard_credentials(respond, incident, scope, after=(back.validated,))
        review(respond, policy_of(incident, scope))


PLAYBOOK = restore_sandbox
