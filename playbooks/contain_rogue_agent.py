"""Contain a rogue agent, take away what it holds, and bring it back clean: the NIST phases from top to bottom.

Whatever fails leaves the agent contained. It is let go only when it was seen contained, its evidence is safe, its tree
is gone, its credentials were seen refused, and the policy is the known-good one.
"""

from __future__ import annotations

from typing import Any

from clawback.action import Action
from clawback.actions.agent_freeze import ACTION as FREEZE
from clawback.actions.agent_isolate import ACTION as ISOLATE
from clawback.actions.agent_relaunch import ACTION as RELAUNCH
from clawback.actions.agent_release import ACTION as RELEASE
from clawback.actions.agent_restrict import ACTION as RESTRICT
from clawback.actions.agent_seal import ACTION as SEAL
from clawback.actions.agent_stop import ACTION as STOP
from clawback.actions.aws_close_trust import ACTION as CLOSE_TRUST
from clawback.actions.aws_delete_key import ACTION as DELETE_KEY
from clawback.actions.aws_issue_session import ACTION as ISSUE_SESSION
from clawback.actions.aws_refuse_sessions import ACTION as REFUSE_SESSIONS
from clawback.actions.aws_restore_trust import ACTION as RESTORE_TRUST
from clawback.actions.aws_rotate_key import ACTION as ROTATE_KEY
from clawback.actions.credential_discard_old import ACTION as DISCARD_OLD
from clawback.actions.evidence_collect import ACTION as COLLECT_EVIDENCE
from clawback.actions.incident_review import ACTION as REVIEW
from clawback.actions.incident_scope import ACTION as SCOPE
from clawback.actions.incident_triage import ACTION as TRIAGE
from clawback.actions.policy_restore import ACTION as RESTORE_POLICY
from clawback.actions.policy_validate import ACTION as VALIDATE
from clawback.actions.ticket_write import ACTION as WRITE_TICKET
from clawback.actions.vault_issue_lease import ACTION as ISSUE_LEASE
from clawback.actions.vault_revoke_leases import ACTION as REVOKE_LEASES
from clawback.actions.vault_rotate_token import ACTION as ROTATE_TOKEN
from clawback.model import CredentialRef, Enforcement, Incident, Phase, Receipt, ReceiptState
from clawback.playbook import Respond, playbook

__all__ = ["PLAYBOOK"]

_Held = tuple[CredentialRef, ...]


@playbook(
    id="contain-rogue-agent",
    title="Contain a rogue agent, take its credentials, restore it",
    answers={
        "exfiltration.new-destination",
        "policy.unapproved-destination",
        "routing.sensitive-to-cloud",
        "sandbox.down",
        "sandbox.escape-attempt",
        "sandbox.new-denial",
        "sandbox.violation-spike",
        "secrets.outside-allow-list",
    },
    runbook="contain-rogue-agent",
)
def contain_rogue_agent(incident: Incident, respond: Respond) -> None:
    """Freeze and isolate first, so that evidence survives; only then replace what leaked; bring it back last."""
    who: dict[str, Any] = {"agent": incident.agent, "instance": incident.instance}
    why = f"{incident.id}: {incident.findings[0].title if incident.findings else 'by hand'}"[:500]

    with respond.phase(Phase.IDENTIFY):
        warranted = respond(TRIAGE, TRIAGE.params(**who))
        if warranted.state is not ReceiptState.VERIFIED:
            respond(SCOPE, SCOPE.params(**who))
            _ticket(respond)
            return

    with respond.phase(Phase.CONTAIN):
        frozen = respond(FREEZE, FREEZE.params(**who, reason=why))
        isolated = respond(ISOLATE, ISOLATE.params(**who, reason=why))
        evidence = respond(COLLECT_EVIDENCE, COLLECT_EVIDENCE.params(**who))
        # Beyond isolation a host gives what it can: what is missing is in the proof, and the tree dies anyway.
        respond(RESTRICT, RESTRICT.params(**who, reason=why, require=Enforcement.PARTIAL), after=(evidence,))
        respond(SEAL, SEAL.params(**who, reason=why, require=Enforcement.PARTIAL), after=(evidence,))

    with respond.phase(Phase.IDENTIFY):  # it stands still: now there is time to look
        scope = respond(SCOPE, SCOPE.params(**who))
        respond(WRITE_TICKET, WRITE_TICKET.params(stage="opened"))
    credentials, policy = _held(scope), _policy(incident, scope)

    with respond.phase(Phase.ERADICATE):
        closed = _each(respond, CLOSE_TRUST, incident.agent, _one_for_each_role(credentials))
        refused = _take_credentials(respond, incident.agent, credentials)
        restored = respond(RESTORE_POLICY, RESTORE_POLICY.params(policy=policy, reason=why)) if policy else None

    with respond.phase(Phase.RECOVER):
        stopped = respond(STOP, STOP.params(**who, reason=why), after=(evidence,))
        clean = (frozen, isolated, scope, evidence, stopped, *closed, *refused, *((restored,) if restored else ()))
        trusted = _each(respond, RESTORE_TRUST, incident.agent, _one_for_each_role(credentials), after=clean)
        sessions = _of(credentials, "aws-session")
        issued = _each(respond, ISSUE_SESSION, incident.agent, sessions, after=(*clean, *trusted))
        leases = tuple(x.name for x in credentials if x.kind == "vault-lease" and x.identifiers.get("path"))
        leased = _each(respond, ISSUE_LEASE, incident.agent, leases, after=clean)
        released = respond(RELEASE, RELEASE.params(**who, reason=why), after=(*clean, *trusted, *issued, *leased))
        relaunched = respond(RELAUNCH, RELAUNCH.params(**who, reason=why), after=(released,))
        validate = VALIDATE.params(agent=incident.agent, replaced=incident.instance)
        validated = respond(VALIDATE, validate, after=(relaunched,))
        if released.state is ReceiptState.VERIFIED:
            _hold_again(respond, incident, relaunched, validated)

    with respond.phase(Phase.POST_INCIDENT):
        # Only now: until the new key is proved in use, the old one can still be given back.
        deleted = _each(respond, DELETE_KEY, incident.agent, _of(credentials, "aws-access-key"), after=(validated,))
        if credentials:
            respond(DISCARD_OLD, DISCARD_OLD.params(agent=incident.agent), after=(validated, *deleted))
        if policy:
            _finish(respond, REVIEW)
            respond(REVIEW, REVIEW.params(policy=policy, revision=_revision(respond)))
        _ticket(respond)


def _take_credentials(respond: Respond, agent: str, credentials: _Held) -> tuple[Receipt, ...]:
    """Replace or end each thing the agent held. Keys before sessions: a live key could make a new session."""
    tokens = _each(respond, ROTATE_TOKEN, agent, _of(credentials, "vault-token"))
    leases = _each(respond, REVOKE_LEASES, agent, _of(credentials, "vault-lease"))
    keys = _each(respond, ROTATE_KEY, agent, _of(credentials, "aws-access-key"))
    sessions = _each(respond, REFUSE_SESSIONS, agent, _of(credentials, "aws-session"))
    # A user that the agent held a key of may have sessions that nobody gave it: it can ask for them itself.
    covered = {ref.identifiers.get("user") for ref in credentials if ref.kind == "aws-session"}
    lone = [x.name for x in credentials if x.kind == "aws-access-key" and x.identifiers.get("user") not in covered]
    return (*tokens, *leases, *keys, *sessions, *_each(respond, REFUSE_SESSIONS, agent, tuple(lone)))


def _hold_again(respond: Respond, incident: Incident, relaunched: Receipt, validated: Receipt) -> None:
    """A recovery that was looked at and not proved is no recovery: the new instance is held like the old one.

    A step that is merely pending is left to `clawback resume`, and a replay that failed was not made: the agent is held
    or gone. Each attempt is an order of its own, so that it contains also what somebody released in between.
    """
    if relaunched.state in (ReceiptState.UNVERIFIED, ReceiptState.FAILED):
        worst = relaunched
    elif validated.state is ReceiptState.UNVERIFIED:
        worst = validated
    else:
        return
    params: dict[str, Any] = {
        "agent": incident.agent,
        "instance": str(relaunched.outcome.get("instance", "")),
        "reason": f"{incident.id}: {worst.action} {worst.state.value}",
        "again": worst.attempts,
    }
    with respond.phase(Phase.CONTAIN):
        respond(FREEZE, FREEZE.params(**params))
        respond(ISOLATE, ISOLATE.params(**params))


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


def _policy(incident: Incident, scope: Receipt) -> str:
    named = (finding.policy for finding in incident.findings if finding.policy)
    return next(named, str(scope.outcome.get("policy", {}).get("name", "")))


def _ticket(respond: Respond) -> None:
    """The ticket as things stand; written anew whenever a resumed response got further."""
    _finish(respond, WRITE_TICKET)
    respond(WRITE_TICKET, WRITE_TICKET.params(stage="latest", revision=_revision(respond)))


def _finish(respond: Respond, action: Action[Any]) -> None:
    """Make the action's earlier revisions that were cut off: left as they are, they would keep the incident open."""
    for cut in respond.incident().receipts:
        if cut.action == action.id and cut.state is not ReceiptState.VERIFIED:
            respond(action, action.params.model_validate(cut.params))


def _revision(respond: Respond) -> int:
    """Grows with every attempt at every step, but for those that only write about the others."""
    receipts = respond.incident().receipts
    return sum(receipt.attempts for receipt in receipts if receipt.action not in (WRITE_TICKET.id, REVIEW.id))


PLAYBOOK = contain_rogue_agent
