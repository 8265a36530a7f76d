"""A policy allows more than was reviewed: find out whether anybody used it, and roll it back by change control.

No agent is punished for a policy that people made: only one that used what it should not have had is held, frozen and
isolated, until the policy is mended. The roll-back waits for a person, because it takes something from every agent
under the policy, and perhaps somebody meant it. Where the reviewed version allows what was found to be wrong, too, a
narrower one is suggested.
"""

from __future__ import annotations

from typing import Any

from clawback.actions.agent_freeze import ACTION as FREEZE
from clawback.actions.agent_isolate import ACTION as ISOLATE
from clawback.actions.policy_impact import ACTION as IMPACT
from clawback.actions.policy_roll_back import ACTION as ROLL_BACK
from clawback.actions.ticket_write import ACTION as WRITE_TICKET
from clawback.model import Incident, Phase, Receipt, ReceiptState
from clawback.playbook import Respond, Step, playbook
from clawback.playbooks._identify import why
from clawback.playbooks._post_incident import review
from clawback.playbooks._recover import tighten_policy
from clawback.playbooks._related import let_go_on

__all__ = ["PLAYBOOK"]


@playbook(
    id="misconfiguration",
    title="Policy wider than reviewed: find the harm, roll it back by change control",
    answers={"policy.widened"},
    runbook="misconfiguration",
)
def misconfiguration(incident: Incident, respond: Respond) -> None:
    """Who could, and who did; hold those who did; mend the policy with consent; let them go on under the mended one."""
    versions = dict.fromkeys((x.policy, x.policy_version) for x in incident.findings if x.policy)

    with respond.phase(Phase.IDENTIFY):
        impacts = tuple(respond(IMPACT, IMPACT.params(policy=name, version=number)) for name, number in versions)
        respond.beside(Step(WRITE_TICKET, WRITE_TICKET.params(stage="opened")))  # the holds wait for no tracker
    harmed = _harmed(impacts)

    with respond.phase(Phase.CONTAIN):
        held = tuple(
            respond(action, action.params(agent=agent, instance=instance, reason=why(incident)))
            for agent, instance in harmed.items()
            for action in (FREEZE, ISOLATE)
        )

    with respond.phase(Phase.ERADICATE):
        policies = tuple(dict.fromkeys(name for name, _ in versions))
        mended = tuple(respond(ROLL_BACK, ROLL_BACK.params(policy=name, reason=why(incident))) for name in policies)
        mended += tuple(made for rolled in mended for made in tighten_policy(respond, incident, rolled))

    with respond.phase(Phase.RECOVER):
        if all(x.state is ReceiptState.VERIFIED for x in mended):
            for name, number in versions:  # once more, over the whole time that it lasted: for people to look into
                respond(IMPACT, IMPACT.params(policy=name, version=number, stage="mended"))
        for agent, instance in harmed.items():
            again: dict[str, Any] = {"agent": agent, "instance": instance, "reason": why(incident)}
            let_go_on(respond, incident, again, after=(*held, *mended))

    with respond.phase(Phase.POST_INCIDENT):
        review(respond, policies[0] if policies else "")


def _harmed(impacts: tuple[Receipt, ...]) -> dict[str, str]:
    """Agents that used what was widened, and the instance that is running. One that ended needs no holding, and one
    that another incident holds is in better hands.
    """
    return {
        str(agent): str(what["instance"])
        for impact in impacts
        for agent, what in impact.outcome.get("harmed", {}).items()
        if what["instance"] and not what["held_by_others"]
    }


PLAYBOOK = misconfiguration
