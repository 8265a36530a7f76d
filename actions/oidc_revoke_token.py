"""Revoke the OAuth tokens that an agent holds: the refresh token first, which makes new ones, then the access token.

They are revoked as the client they were issued to, where the agent holds that client's secret, else as our own client.
Issuers answer success whatever they did, so the proof is made elsewhere: introspection calls each token inactive, the
access token is refused by a resource, the refresh grant is refused. A refresh that is accepted all the same wins new
tokens; these are revoked at once, and the step has failed.

A JWT that resource servers check by themselves cannot be recalled: it is good until it expires, and nothing here
claims otherwise. Beside a refresh token that was refused, it makes the step `partial`, with the time until when; alone,
it leaves the step unverified until then.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from clawback.action import Action, Context, Plan, Record, Reversibility, Verification
from clawback.actions._credentials import (
    CredentialParams,
    as_record,
    credential_key,
    enforcement,
    from_record,
    held,
    rechecked,
    watch_refused,
)
from clawback.actions._oidc import client_of, identity, jwt_expiry, mark, tokens_of, value_with
from clawback.errors import NotEnforced, Refused, Unreachable
from clawback.model import CredentialRef, Phase

__all__ = ["ACTION"]

_KIND = "oidc-token"


@dataclass
class _Findings:
    """What verifying has seen so far, in words."""

    proof: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)


class _State(StrEnum):
    DEAD = "dead"  # seen refused, or called inactive, and nowhere accepted
    LIVE = "live"
    UNRECALLED = "unrecalled"  # a JWT that has not expired: accepted by whoever checks it alone
    UNSEEN = "unseen"


def _plan(ctx: Context, params: CredentialParams) -> Plan:
    ref = held(ctx, params, _KIND)
    issuer, client_id = identity(ref)
    changes, checks = [], []
    as_whom = client_id if client_of(ctx, params.agent, issuer, client_id) else "our own client"
    for kind, token in tokens_of(ctx.world.secrets.current(params.agent, params.name)).items():
        said = _looked_at(ctx, issuer, token, kind)
        state = "not introspected" if said is None else "active" if said["active"] else "inactive already"
        changes.append(f"- {_words(kind)} of {client_id} at {issuer}: {state}")
        if (expiry := jwt_expiry(token)) is not None:
            checks.append(f"the {_words(kind)} is a JWT: whoever checks it alone accepts it {_until(expiry)}")
    return Plan(changes=tuple(changes), checks=(f"revoked as {as_whom}", *checks))


def _capture(ctx: Context, params: CredentialParams) -> Record:
    ref = held(ctx, params, _KIND)
    issuer, _ = identity(ref)
    value = ctx.world.secrets.current(params.agent, params.name)
    before: dict[str, Any] = {}
    for kind, token in tokens_of(value).items():
        said = _looked_at(ctx, issuer, token, kind)
        used = ctx.world.oidc.use(issuer, token, resource=_resource(ref)) if kind == "access_token" else None
        before[kind.removesuffix("_token")] = {
            "active": None if said is None else said["active"],
            "used": None if used is None else used[0],
            "expires": jwt_expiry(token),
        }
    return {"ref": as_record(ref), "mark": mark(value), "before": before}


def _apply(ctx: Context, params: CredentialParams, captured: Record) -> Record:
    issuer, client_id = identity(from_record(captured["ref"]))
    value = value_with(ctx, params.agent, params.name, captured["mark"])
    if value is None:
        raise NotEnforced(
            f"{params.agent}'s {params.name} was replaced since it was looked at, and not kept",
            hint="revoke it at the issuer: nobody here knows the value any more",
        )
    outcome = {}
    for kind, token in tokens_of(value).items():
        outcome[kind.removesuffix("_token")] = _revoke(ctx, params.agent, (issuer, client_id), token, kind)
    return {"left": outcome}


def _revoke(ctx: Context, agent: str, who: tuple[str, str], token: str, kind: str) -> str:
    """As the token's own client where that is to be had, and else as ours; empty, or why it cannot be recalled."""
    issuer, client_id = who
    if client := client_of(ctx, agent, issuer, client_id):
        try:
            left = ctx.world.oidc.revoke(issuer, token, hint=kind, client=client)
        except Refused:  # its secret may be dead already
            left = ""
        # To a client that the token was not issued to, issuers say success too.
        said = _introspected(ctx, issuer, token, kind)
        if left or (said is not None and not said["active"]):
            return left
    return ctx.world.oidc.revoke(issuer, token, hint=kind)


def _verify(ctx: Context, params: CredentialParams, captured: Record, outcome: Record) -> Verification:
    ref = from_record(captured["ref"])
    issuer, client_id = identity(ref)
    value = value_with(ctx, params.agent, params.name, captured["mark"])
    seen, states = _Findings(), []
    if value is None:
        seen.missing.append("the old tokens were discarded: nothing was tried")
    for kind, token in tokens_of(value).items() if value is not None else ():
        short = kind.removesuffix("_token")
        if left := outcome["left"][short]:
            seen.proof.append(f"{_words(kind)} not recalled ({left})")
        states.append(_state(ctx, params, ref, (kind, token), captured["before"][short], seen))
    verified = _State.DEAD in states and not {_State.LIVE, _State.UNSEEN} & set(states)
    return Verification(
        verified=verified,
        enforcement=enforcement(verified=verified, missing=tuple(seen.missing)),
        proof="; ".join([f"tokens of {client_id} at {issuer}", *seen.proof, *seen.missing]),
        details={"left": outcome["left"], "missing": seen.missing},
    )


def _recheck(ctx: Context, params: CredentialParams, captured: Record, _outcome: Record) -> Verification | None:
    """By introspection alone, which uses no token and wins none."""
    issuer, client_id = identity(from_record(captured["ref"]))
    value = value_with(ctx, params.agent, params.name, captured["mark"])
    active = []
    for kind, token in tokens_of(value).items() if value is not None else ():
        if captured["before"][kind.removesuffix("_token")]["expires"] is not None:
            continue  # a JWT: nobody recalled it
        said = _introspected(ctx, issuer, token, kind)
        active += [(kind, bool(said["active"]))] if said is not None else []
    if not active:
        return None
    words = (f"{_words(kind)} {'ACTIVE' if lives else 'inactive'}" for kind, lives in active)
    return rechecked(
        holds=not any(lives for _, lives in active),
        proof=f"introspection at {issuer} calls of {client_id}'s: {', '.join(words)}",
    )


def _state(
    ctx: Context, params: CredentialParams, ref: CredentialRef, what: tuple[str, str], before: Record, seen: _Findings
) -> _State:
    """Of one token (kind, value), by all that can be asked of it."""
    kind, token = what
    if kind == "refresh_token":
        used = _refreshed(ctx, params, ref, token, seen)
    else:
        used = _used(ctx, ref, token, before, seen)
    expires = before["expires"]
    if expires is not None:
        if 0 < expires < time.time():
            seen.proof.append(f"{_words(kind)}, a JWT, expired {_moment(expires)}")
            return _State.LIVE if used else _State.DEAD
        seen.missing.append(f"the {_words(kind)} is a JWT: whoever checks it alone accepts it {_until(expires)}")
        return _State.LIVE if used else _State.UNRECALLED
    inactive = _inactive(ctx, ref.identifiers["issuer"], token, kind, seen)
    if before["active"] is not True and before["used"] is not True:
        seen.missing.append(f"the {_words(kind)} was not seen to work before")
    if used or inactive is False:
        return _State.LIVE
    if used is None and inactive is None:
        seen.missing.append(f"nothing was seen of the {_words(kind)}")
        return _State.UNSEEN
    return _State.DEAD


def _inactive(ctx: Context, issuer: str, token: str, kind: str, seen: _Findings) -> bool | None:
    """Introspection calls it inactive; None where there is none."""

    def ask() -> tuple[bool, str]:
        said = _introspected(ctx, issuer, token, kind)
        return said is not None and said["active"], "none" if said is None else str(said["active"])

    inactive, answer = watch_refused(ask, 0.0)
    if answer == "none":
        seen.missing.append(f"the issuer does not introspect the {_words(kind)}")
        return None
    seen.proof.append(f"introspection calls the {_words(kind)} {'inactive' if inactive else 'ACTIVE'}")
    return inactive


def _used(ctx: Context, ref: CredentialRef, token: str, before: Record, seen: _Findings) -> bool | None:
    """A resource accepts the access token; None where none did before, so that a refusal says nothing."""
    issuer, resource = ref.identifiers["issuer"], _resource(ref)

    def ask() -> tuple[bool, str]:
        return ctx.world.oidc.use(issuer, token, resource=resource) or (False, "nothing to read")

    refused, answer = watch_refused(ask, 0.0)
    if refused and before["used"] is not True:
        seen.missing.append("no resource is known that took the access token before")
        return None
    seen.proof.append(f"access token used: {'refused' if refused else 'ACCEPTED'} ({answer})")
    return not refused


def _refreshed(ctx: Context, params: CredentialParams, ref: CredentialRef, token: str, seen: _Findings) -> bool | None:
    """The refresh grant is accepted; None where it could not be tried, or says nothing of the token."""
    issuer, client_id = identity(ref)
    client = client_of(ctx, params.agent, issuer, client_id)
    if not client:
        seen.missing.append(f"the refresh token was not used, as the secret of {client_id} is not at hand")
        return None
    accepted, answer, won = ctx.world.oidc.refresh(issuer, token, client=client)
    for kind, fresh in won.items():
        _revoke(ctx, params.agent, (issuer, client_id), fresh, kind)
    if not accepted and "invalid_grant" not in answer:
        seen.missing.append(f"the refusal is not of the refresh token ({answer})")
        return None
    seen.proof.append(
        f"refresh token used: {'ACCEPTED, what it won was revoked' if accepted else 'refused'} ({answer})"
    )
    return accepted


def _introspected(ctx: Context, issuer: str, token: str, kind: str) -> dict[str, Any] | None:
    """By our own client; None too where that is not allowed to ask."""
    try:
        return ctx.world.oidc.introspect(issuer, token, hint=kind)
    except Refused:
        return None


def _looked_at(ctx: Context, issuer: str, token: str, kind: str) -> dict[str, Any] | None:
    """Beforehand; None too where the issuer fails, as some do on tokens of a client that is gone: that revokes none."""
    try:
        return _introspected(ctx, issuer, token, kind)
    except Unreachable:
        return None


def _resource(ref: CredentialRef) -> str:
    return ref.identifiers.get("resource", "")


def _words(kind: str) -> str:
    """In a text, `access_token: …` would be taken for a secret, and blanked."""
    return kind.replace("_", " ")


def _until(expiry: int) -> str:
    return f"until {_moment(expiry)}" if expiry else "for ever: it names no expiry"


def _moment(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


ACTION: Action[CredentialParams] = Action(
    id="oidc.revoke-token",
    summary="Revoke the OAuth tokens that the agent holds.",
    phase=Phase.ERADICATE,
    reversibility=Reversibility.IRREVERSIBLE,
    needs=frozenset({"oidc:introspection", "oidc:revocation"}),
    scope="the refresh and access token of one credential, and what the issuer ends with them",
    openc2="delete",
    d3fend="D3-CR",
    params=CredentialParams,
    key=credential_key,
    plan=_plan,
    capture=_capture,
    apply=_apply,
    verify=_verify,
    recheck=_recheck,
)
