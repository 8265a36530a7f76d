"""Credentials: each thing that the agent held is taken from it, given back anew, and its old value destroyed last."""

from __future__ import annotations

from typing import Any

from clawback.action import Action
from clawback.actions.aws_close_trust import ACTION as CLOSE_TRUST
from clawback.actions.aws_delete_key import ACTION as DELETE_KEY
from clawback.actions.aws_issue_session import ACTION as ISSUE_SESSION
from clawback.actions.aws_refuse_sessions import ACTION as REFUSE_SESSIONS
from clawback.actions.aws_restore_trust import ACTION as RESTORE_TRUST
from clawback.actions.aws_rotate_key import ACTION as ROTATE_KEY
from clawback.actions.credential_discard_old import ACTION as DISCARD_OLD
from clawback.actions.vault_issue_lease import ACTION as ISSUE_LEASE
from clawback.actions.vault_revoke_leases import ACTION as REVOKE_LEASES
from clawback.actions.vault_rotate_token import ACTION as ROTATE_TOKEN
from clawback.model import CredentialRef, Incident, Receipt
from clawback.playbook import Respond, Step

__all__ = ["close_credentials", "discard_credentials", "reissue_credentials"]

_Held = tuple[CredentialRef, ...]


def close_credentials(respond: Respond, incident: Incident, scope: Receipt) -> tuple[Receipt, ...]:
    """Every credential that the scope found is refused from here on, and nothing new can be made from one."""
    credentials = _held(scope)
    closed = _each(respond, CLOSE_TRUST, incident.agent, _one_for_each_role(credentials))
    return (*closed, *_take_credentials(respond, incident.agent, credentials))


def reissue_credentials(
    respond: Respond, incident: Incident, scope: Receipt, *, after: tuple[Receipt, ...]
) -> tuple[Receipt, ...]:
    """Trusts are opened again, and sessions and leases issued anew, once all of `after` is verified."""
    credentials = _held(scope)
    trusted = _each(respond, RESTORE_TRUST, incident.agent, _one_for_each_role(credentials), after=after)
    sessions = _of(credentials, "aws-session")
    issued = _each(respond, ISSUE_SESSION, incident.agent, sessions, after=(*after, *trusted))
    leases = tuple(x.name for x in credentials if x.kind == "vault-lease" and x.identifiers.get("path"))
    return (*trusted, *issued, *_each(respond, ISSUE_LEASE, incident.agent, leases, after=after))


def discard_credentials(respond: Respond, incident: Incident, scope: Receipt, *, after: tuple[Receipt, ...]) -> None:
    """Destroy the old values. Until the new key is proved in use, the old one can still be given back."""
    credentials = _held(scope)
    deleted = _each(respond, DELETE_KEY, incident.agent, _of(credentials, "aws-access-key"), after=after)
    if credentials:
        respond(DISCARD_OLD, DISCARD_OLD.params(agent=incident.agent), after=(*after, *deleted))


def _take_credentials(respond: Respond, agent: str, credentials: _Held) -> tuple[Receipt, ...]:
    """Replace or end each thing the agent held, Vault's and AWS's side by side.

    Keys before sessions: a live key could make a new session. Tokens before leases: a live token could take a new one.
    """

    def steps(action: Action[Any], names: tuple[str, ...]) -> tuple[Step, ...]:
        return tuple(Step(action, action.params(agent=agent, name=name)) for name in names)

    first = respond.together(
        *steps(ROTATE_TOKEN, _of(credentials, "vault-token")),
        *steps(ROTATE_KEY, _of(credentials, "aws-access-key")),
    )
    # A user that the agent held a key of may have sessions that nobody gave it: it can ask for them itself.
    covered = {ref.identifiers.get("user") for ref in credentials if ref.kind == "aws-session"}
    lone = [x.name for x in credentials if x.kind == "aws-access-key" and x.identifiers.get("user") not in covered]
    then = respond.together(
        *steps(REVOKE_LEASES, _of(credentials, "vault-lease")),
        *steps(REFUSE_SESSIONS, (*_of(credentials, "aws-session"), *lone)),
    )
    return (*first, *then)


def _each(
    respond: Respond, action: Action[Any], agent: str, names: tuple[str, ...], after: tuple[Receipt, ...] = ()
) -> tuple[Receipt, ...]:
    return tuple(respond(action, action.params(agent=agent, name=name), after=after) for name in names)


def _held(scope: Receipt) -> _Held:
    """What the scope found the agent to hold, as the journal has it: the same on every run."""
    return tuple(
        CredentialRef(kind=str(x["kind"]), name=str(x["name"]), identifiers=dict(x["identifiers"]))
        for x in scope.outcome.get("credentials", ())
    )


def _of(credentials: _Held, kind: str) -> tuple[str, ...]:
    return tuple(ref.name for ref in credentials if ref.kind == kind)


def _one_for_each_role(credentials: _Held) -> tuple[str, ...]:
    """One session's name for each role. Closed twice, the second capture would take the closed trust for the old."""
    sessions = [x for x in credentials if x.kind == "aws-session" and x.identifiers.get("role")]
    return tuple({x.identifiers["role"]: x.name for x in reversed(sessions)}.values())
