"""What playbooks do about credentials: trace, replace, close, trace again, confirm; give back anew; destroy the old.

Turns are numbered in the parameters, and what a turn closes is read from that turn's trace in the journal: a response
that was cut off runs it from the top and meets the same steps.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from clawback.action import Action
from clawback.actions._issuers import kinds
from clawback.actions.aws_close_trust import ACTION as CLOSE_TRUST
from clawback.actions.aws_delete_key import ACTION as DELETE_KEY
from clawback.actions.aws_issue_session import ACTION as ISSUE_SESSION
from clawback.actions.aws_refuse_sessions import ACTION as REFUSE_SESSIONS
from clawback.actions.aws_restore_trust import ACTION as RESTORE_TRUST
from clawback.actions.aws_rotate_key import ACTION as ROTATE_KEY
from clawback.actions.credential_confirm_closed import ACTION as CONFIRM_CLOSED
from clawback.actions.credential_discard_old import ACTION as DISCARD_OLD
from clawback.actions.credential_refuse import ACTION as REFUSE
from clawback.actions.credential_revoke import ACTION as REVOKE
from clawback.actions.credential_trace import ACTION as TRACE
from clawback.actions.oidc_revoke_token import ACTION as REVOKE_OIDC_TOKEN
from clawback.actions.oidc_rotate_client import ACTION as ROTATE_OIDC_CLIENT
from clawback.actions.release_roll_back import ACTION as ROLL_BACK
from clawback.actions.vault_issue_lease import ACTION as ISSUE_LEASE
from clawback.actions.vault_replace_kv import ACTION as REPLACE_KV
from clawback.actions.vault_revoke_leases import ACTION as REVOKE_LEASES
from clawback.actions.vault_rewrap_delivery import ACTION as REWRAP_DELIVERY
from clawback.actions.vault_rotate_secret_id import ACTION as ROTATE_SECRET_ID
from clawback.actions.vault_rotate_static_role import ACTION as ROTATE_STATIC_ROLE
from clawback.actions.vault_rotate_token import ACTION as ROTATE_TOKEN
from clawback.model import CredentialGraph, CredentialNode, CredentialRef, Incident, Known, Phase, Receipt, ReceiptState
from clawback.playbook import Respond, Step
from clawback.playbooks._related import contain_related

__all__ = ["TURNS", "close_credentials", "discard_credentials", "everybody", "reissue_credentials"]

_Held = tuple[CredentialRef, ...]

# Each turn closes what the one before let slip; an agent, or a helper of it, that still makes credentials after so many
# has a way that is not known here, and a person must look.
TURNS = 6

_BY_ID: dict[str, Action[Any]] = {action.id: action for action in (TRACE, REFUSE, REVOKE)}

# One line after the other: by a live login a token could be had, by a live client too, and by a live token the new
# password read. Within a line nothing depends on the other. A delivery comes last: it hands out what was replaced.
_REPLACED_BY: tuple[dict[str, Action[Any]], ...] = (
    {"vault-approle": ROTATE_SECRET_ID, "aws-access-key": ROTATE_KEY, "oidc-client": ROTATE_OIDC_CLIENT},
    {"vault-token": ROTATE_TOKEN, "oidc-token": REVOKE_OIDC_TOKEN},
    {"vault-lease": REVOKE_LEASES, "vault-static-role": ROTATE_STATIC_ROLE, "vault-kv": REPLACE_KV},
    {"vault-wrapped": REWRAP_DELIVERY},
)


def close_credentials(respond: Respond, incident: Incident, scope: Receipt) -> tuple[Receipt, ...]:
    """Take everything that the agent, and those in scope with it, held, and everything issued from it.

    Those in scope are contained first: they lose what they share, and a sub-agent did what it was told. What they held
    is replaced, as its rightful user goes on with the new one; what came of it is closed. Returns what recovery depends
    on.
    """
    with respond.phase(Phase.CONTAIN):
        related = contain_related(respond, incident, scope)
    agent, holders = incident.agent, everybody(incident, scope)
    first = _graph(respond(TRACE, TRACE.params(agent=agent, turn=1)))
    covered = _covered(holders)
    found = [node for node in _in_order(first.alive) if node.known is not Known.INVENTORY and node.key not in covered]
    taken = [respond(CLOSE_TRUST, CLOSE_TRUST.params(agent=who, name=name)) for who, name in _trusts(holders)]
    for node in found:
        if not kinds()[node.kind].sessions:
            _close(respond, agent, node, 1)
    for who, held in holders:
        taken += _rotate(respond, who, held)
    for node in found:
        if kinds()[node.kind].sessions:
            _close(respond, agent, node, 1)
    for who, held in holders:
        taken += _refuse_sessions(respond, who, held)
    return (*related, *taken, _until_nothing_lives(respond, agent))


def reissue_credentials(
    respond: Respond, incident: Incident, scope: Receipt, *, after: tuple[Receipt, ...]
) -> tuple[Receipt, ...]:
    """Trusts are opened again, and sessions and leases issued anew, once all of `after` is verified."""
    holders = everybody(incident, scope)
    trusted = tuple(
        respond(RESTORE_TRUST, RESTORE_TRUST.params(agent=who, name=name), after=after)
        for who, name in _trusts(holders)
    )
    issued: list[Receipt] = []
    for who, held in holders:
        issued += _each(respond, ISSUE_SESSION, who, _of(held, "aws-session"), after=(*after, *trusted))
        leases = tuple(ref.name for ref in held if ref.kind == "vault-lease" and ref.identifiers.get("path"))
        issued += _each(respond, ISSUE_LEASE, who, leases, after=after)
    return (*trusted, *issued)


def discard_credentials(respond: Respond, incident: Incident, scope: Receipt, *, after: tuple[Receipt, ...]) -> None:
    """Destroy the old values. Until the new key is proved in use, the old one can still be given back; a release that
    was rolled back proved nothing.

    One that was handed over to another incident proves nothing either. The keys are deleted, as that incident replaces
    what was issued here; the store's old value may be its by now, and is its to destroy.
    """
    if any(receipt.action == ROLL_BACK.id for receipt in after):
        return
    handed = any(receipt.outcome.get("held_by") for receipt in after)
    for who, held in everybody(incident, scope):
        deleted = _each(respond, DELETE_KEY, who, _of(held, "aws-access-key"), after=after)
        if held and not handed:
            respond(DISCARD_OLD, DISCARD_OLD.params(agent=who), after=(*after, *deleted))


def _until_nothing_lives(respond: Respond, agent: str) -> Receipt:
    for turn in range(2, TURNS + 1):
        alive = _in_order(_graph(respond(TRACE, TRACE.params(agent=agent, turn=turn))).alive)
        if not alive:
            confirmed = respond(CONFIRM_CLOSED, CONFIRM_CLOSED.params(agent=agent))
            if confirmed.state is ReceiptState.VERIFIED or not _graph(confirmed).alive:
                break  # or nothing is left that could be closed here
        for node in alive:
            _close(respond, agent, node, turn)
    else:
        confirmed = respond(CONFIRM_CLOSED, CONFIRM_CLOSED.params(agent=agent))
    _finish(respond, agent, turn)
    return confirmed


def _finish(respond: Respond, agent: str, reached: int) -> None:
    """A closing that was undone before it was seen was made again by a later turn: by now it is seen. And what an
    earlier life was cut off in, in turns that this one had no need of, would keep the incident open.
    """
    for cut in respond.incident().receipts:
        action = _BY_ID.get(cut.action)
        if action is None or cut.state is ReceiptState.VERIFIED or cut.params.get("agent") != agent:
            continue
        if action is not TRACE or cut.params["turn"] > reached:
            respond(action, action.params.model_validate(cut.params))


def _close(respond: Respond, agent: str, node: CredentialNode, turn: int) -> None:
    action = REFUSE if kinds()[node.kind].reversible else REVOKE
    respond(action, action.params(agent=agent, kind=node.kind, id=node.id, turn=turn))


def _rotate(respond: Respond, agent: str, held: _Held) -> tuple[Receipt, ...]:
    """What it held, each by the action for its kind, side by side where nothing depends on the other."""
    taken: list[Receipt] = []
    for actions in _REPLACED_BY:
        steps = [(action, name) for kind, action in actions.items() for name in _of(held, kind)]
        taken += respond.together(*(Step(action, action.params(agent=agent, name=name)) for action, name in steps))
    return tuple(taken)


def _refuse_sessions(respond: Respond, agent: str, credentials: _Held) -> tuple[Receipt, ...]:
    """After the keys: a live key could make a new session."""
    sessions = _each(respond, REFUSE_SESSIONS, agent, _of(credentials, "aws-session"))
    # A user that the agent held a key of may have sessions that nobody gave it: it can ask for them itself.
    covered = {ref.identifiers.get("user") for ref in credentials if ref.kind == "aws-session"}
    lone = [x.name for x in credentials if x.kind == "aws-access-key" and x.identifiers.get("user") not in covered]
    return (*sessions, *_each(respond, REFUSE_SESSIONS, agent, tuple(lone)))


def _covered(holders: tuple[tuple[str, _Held], ...]) -> set[str]:
    """Nodes that the inventory's own actions close in the first turn."""
    every = [ref for _, held in holders for ref in held]
    users = {ref.identifiers.get("user", "") for ref in every if ref.kind in {"aws-access-key", "aws-session"}}
    return {f"aws-user-sessions/{user}" for user in users}


def _in_order(nodes: Iterable[CredentialNode]) -> list[CredentialNode]:
    """What could make others first, sessions last; of one kind, what was found last first.

    A role's sessions go before those that it was become from: while these live, one can be had to prove the refusal
    with. What they make meanwhile is refused with the rest, as the moment of the refusal lies ahead.
    """
    last_first = tuple(nodes)[::-1]
    return sorted(last_first, key=lambda node: kinds()[node.kind].order)


def _graph(receipt: Receipt) -> CredentialGraph:
    return CredentialGraph.from_record(receipt.outcome)


def _each(
    respond: Respond, action: Action[Any], agent: str, names: tuple[str, ...], after: tuple[Receipt, ...] = ()
) -> tuple[Receipt, ...]:
    return tuple(respond(action, action.params(agent=agent, name=name), after=after) for name in names)


def everybody(incident: Incident, scope: Receipt) -> tuple[tuple[str, _Held], ...]:
    """The agent with all it held; those in scope with it: a sub-agent with all, a sharer with what it shares.

    As the journal has it: the same on every run.
    """
    related = scope.outcome.get("related", ())
    return (
        (incident.agent, _refs(scope.outcome.get("credentials", ()))),
        *((str(other["id"]), _refs(other.get("credentials", ()))) for other in related),
    )


def _refs(records: Iterable[Any]) -> _Held:
    return tuple(
        CredentialRef(kind=str(x["kind"]), name=str(x["name"]), identifiers=dict(x["identifiers"])) for x in records
    )


def _of(held: _Held, kind: str) -> tuple[str, ...]:
    return tuple(ref.name for ref in held if ref.kind == kind)


def _trusts(holders: tuple[tuple[str, _Held], ...]) -> tuple[tuple[str, str], ...]:
    """One holder and name for each role. Closed twice, the second capture would take the closed trust for the old."""
    first: dict[str, tuple[str, str]] = {}
    for who, held in holders:
        for ref in held:
            if ref.kind == "aws-session" and ref.identifiers.get("role"):
                first.setdefault(ref.identifiers["role"], (who, ref.name))
    return tuple(first.values())
