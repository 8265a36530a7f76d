"""What playbooks do in AWS beside closing credentials: deny the identity everything meanwhile, mend what it changed.

Only where a credential of AWS is in scope; elsewhere each step is skipped, and the timeline says why.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

from clawback.actions.aws_allow_principal import ACTION as ALLOW
from clawback.actions.aws_deny_principal import ACTION as DENY
from clawback.actions.aws_detach_instance_profile import ACTION as DETACH
from clawback.actions.aws_disable_foreign_credentials import ACTION as DISABLE_FOREIGN
from clawback.actions.aws_revert_agent_changes import ACTION as REVERT_CHANGES
from clawback.actions.aws_set_boundary import ACTION as SET_BOUNDARY
from clawback.model import CredentialGraph, CredentialRef, Incident, Receipt, ReceiptState
from clawback.playbook import Respond
from clawback.playbooks._credentials import everybody

__all__ = ["allow_principals", "deny_principals", "mend_cloud"]

_KINDS = ("aws-access-key", "aws-session")
_CHANGED = frozenset({"aws-grant", "aws-identity", "aws-trust"})  # nodes of the trace that are changes in IAM
_BEFORE = timedelta(days=1)  # a thief makes a key of its own first, and is noticed later
_NONE = "no AWS credential with a user or role is in scope"


def deny_principals(respond: Respond, incident: Incident, scope: Receipt) -> tuple[Receipt, ...]:
    """Deny the users and roles everything, and hand instances the roles no more: at once, while credentials are closed.

    A principal whose inline policies have no room for the denial gets a boundary that allows nothing.
    """
    made: list[Receipt] = []
    for agent, ref in _principals(incident, scope):
        denied = respond(DENY, DENY.params(agent=agent, name=ref.name))
        made.append(denied)
        if denied.state is ReceiptState.FAILED:
            made.append(respond(SET_BOUNDARY, SET_BOUNDARY.params(agent=agent, name=ref.name)))
        if ref.kind == "aws-session" and ref.identifiers.get("role"):
            made.append(respond(DETACH, DETACH.params(agent=agent, name=ref.name)))
    for action in () if made else (DENY, DETACH):
        respond.skip(action, _NONE)
    return tuple(made)


def mend_cloud(respond: Respond, incident: Incident, scope: Receipt, closed: Receipt) -> tuple[Receipt, ...]:
    """Disable what nobody issued, and put back what the agent changed in IAM. `closed` is the step that confirms the
    closing: it has what the trace found.
    """
    seen = min((x.time_ns for x in incident.findings), default=incident.opened_ns)
    first = datetime.fromtimestamp(seen // 1_000_000_000, UTC)
    agents = tuple(dict.fromkeys(agent for agent, _ in _principals(incident, scope)))
    made = [
        respond(DISABLE_FOREIGN, DISABLE_FOREIGN.params(agent=agent, since=(first - _BEFORE).isoformat()))
        for agent in agents
    ]
    if not agents:
        respond.skip(DISABLE_FOREIGN, _NONE)
        respond.skip(REVERT_CHANGES, _NONE)
    elif not any(node.kind in _CHANGED for node in CredentialGraph.from_record(closed.outcome).nodes):
        respond.skip(REVERT_CHANGES, "the trace found no change in IAM by what the agent held")
    else:
        since = (first - _BEFORE).isoformat()
        made += [respond(REVERT_CHANGES, REVERT_CHANGES.params(agent=agent, since=since)) for agent in agents]
    return tuple(made)


def allow_principals(
    respond: Respond, denied: tuple[Receipt, ...], *, after: tuple[Receipt, ...]
) -> tuple[Receipt, ...]:
    """Take the denials off, once all of `after` is verified: what is issued anew is of the same users and roles."""
    agents = dict.fromkeys(str(receipt.params["agent"]) for receipt in denied)
    return tuple(respond(ALLOW, ALLOW.params(agent=agent), after=after) for agent in agents)


def _principals(incident: Incident, scope: Receipt) -> Iterator[tuple[str, CredentialRef]]:
    """Credentials that between them name each user and role; those with a role first, which name their user too."""
    refs = [(agent, ref) for agent, held in everybody(incident, scope) for ref in held if ref.kind in _KINDS]
    named: set[str] = set()
    for agent, ref in sorted(refs, key=lambda x: not x[1].identifiers.get("role")):
        mine = {ref.identifiers.get(key, "") for key in ("user", "role")} - {""}
        if mine - named:
            named |= mine
            yield agent, ref
