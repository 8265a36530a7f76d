"""Identify: whether to act at all, whom it is about, and, once the agent stands still, how far the incident reaches."""

from __future__ import annotations

from typing import Any

from clawback.actions.access_review import ACTION as REVIEW_ACCESS
from clawback.actions.incident_scope import ACTION as SCOPE
from clawback.actions.incident_triage import ACTION as TRIAGE
from clawback.actions.notify_send import ACTION as NOTIFY
from clawback.actions.ticket_write import ACTION as WRITE_TICKET
from clawback.model import Incident, Receipt, ReceiptState, staged_from
from clawback.playbook import Respond, Step
from clawback.playbooks._post_incident import ticket

__all__ = ["look", "policy_of", "review_access", "warranted", "who", "why"]


def who(incident: Incident) -> dict[str, Any]:
    """The agent and the instance that the incident is about, as most actions take them."""
    return {"agent": incident.agent, "instance": incident.instance}


def why(incident: Incident) -> str:
    """What stands as the reason on holds and policy versions."""
    return f"{incident.id}: {incident.findings[0].title if incident.findings else 'by hand'}"[:500]


def warranted(respond: Respond, incident: Incident) -> bool:
    """Whether the response may contain the agent by itself. If not, the reach is recorded and a ticket waits."""
    if respond(TRIAGE, TRIAGE.params(**who(incident))).state is ReceiptState.VERIFIED:
        return True
    respond(SCOPE, SCOPE.params(**who(incident)))
    ticket(respond)
    return False


def look(respond: Respond, incident: Incident) -> Receipt:
    """Record the reach, open the ticket, tell people. No more is waited for than the reach: a tracker or a chat that
    hangs holds up nothing.
    """
    scope = respond(SCOPE, SCOPE.params(**who(incident)))
    respond.beside(
        Step(WRITE_TICKET, WRITE_TICKET.params(stage="opened")),
        Step(NOTIFY, NOTIFY.params(stage="opened")),
    )
    return scope


def review_access(respond: Respond, incident: Incident) -> Receipt:
    """Say from the record what the agent sent, read and called; again when more was found."""
    return respond(REVIEW_ACCESS, REVIEW_ACCESS.params(**who(incident), findings=len(incident.findings)))


def policy_of(incident: Incident, scope: Receipt) -> str:
    """The policy that the findings name, else the one that the agent runs under; for a stage's copy its original."""
    named = (finding.policy for finding in incident.findings if finding.policy)
    found = next(named, str(scope.outcome.get("policy", {}).get("name", "")))
    return staged_from(found) or found
