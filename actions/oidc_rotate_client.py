"""Give the agent's OAuth client a new secret, so that the old one is refused; where the issuer cannot, a new client.

The client's registration is updated (RFC 7592), upon which some issuers issue a new secret. One that keeps the old is
left with no other way than a new client with the same metadata, and the deletion of the old one: its client id changes
then, and whatever was granted to that id, in the issuer or elsewhere, must be granted anew. The plan says so.

Clawback manages a client by its registration access token, which it holds under its own name in the secret store
(kind `oidc-registration`), never the agent. Order: the new secret is stored before the old client is deleted, and
becomes current last. Cut off between the issuer's answer and its storing, the new secret is read back from the
registration; where the answer had replaced that token too, the old secret is dead and the new one is lost: then a new
client is registered. A registration that was cut off may leave a client whose secret nobody has. Tokens that were
issued before live on: `oidc.revoke-token` ends them. Nothing undoes this.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from typing import Any

from clawback.action import Action, Context, Plan, Record, Reversibility, Verification
from clawback.actions._credentials import (
    CredentialParams,
    as_record,
    credential_key,
    enforcement,
    from_record,
    held,
    other_holders,
    rechecked,
    sealed,
    unsealed,
    watch_accepted,
    watch_refused,
)
from clawback.actions._oidc import identity, mark, value_with
from clawback.errors import NotFound, Refused
from clawback.model import CredentialRef, Phase

__all__ = ["ACTION", "MANAGER", "RotateClientParams"]

MANAGER = "clawback"  # under this name the secret store holds what is Clawback's own
_KIND = "oidc-client"
_REGISTRATION = "oidc-registration"
# What the issuer says and must not be told (RFC 7592 section 2.2), and secrets.
_NOT_METADATA = frozenset(
    {
        "client_id_issued_at",
        "client_secret",
        "client_secret_expires_at",
        "registration_access_token",
        "registration_client_uri",
    }
)


class RotateClientParams(CredentialParams):
    """`replace`: a new client at once, without an update first, for an issuer that is known to keep secrets.

    Some change the registration access token with each update; one that is cut off leaves the old client past deleting.
    """

    replace: bool = False


def _registration(ctx: Context, issuer: str, client_id: str) -> CredentialRef:
    """Our right to manage the client. `NotFound` where none is held."""
    for ref in ctx.world.secrets.refs(MANAGER):
        if ref.kind == _REGISTRATION and identity(ref) == (issuer, client_id) and ref.identifiers.get("uri"):
            return ref
    raise NotFound(
        f"no registration of {client_id} at {issuer} is held",
        hint=f"clawback secret put {MANAGER} NAME --kind {_REGISTRATION} --id issuer=… --id client_id=… --id uri=…",
    )


def _read(ctx: Context, issuer: str, client_id: str) -> dict[str, Any]:
    ref = _registration(ctx, issuer, client_id)
    return ctx.world.oidc.registration(issuer, ref.identifiers["uri"], ctx.world.secrets.current(MANAGER, ref.name))


def _metadata(registered: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in registered.items() if key not in _NOT_METADATA}


def _plan(ctx: Context, params: RotateClientParams) -> Plan:
    ref = held(ctx, params, _KIND)
    issuer, client_id = identity(ref)
    registered = _read(ctx, issuer, client_id)
    otherwise = "" if params.replace else f"or, where {issuer} keeps the old one: "
    return Plan(
        changes=(
            f"- {client_id} at {issuer}: its secret",
            *(() if params.replace else (f"+ {params.agent}/{params.name}: a new secret of {client_id}",)),
            f"+ {otherwise}a new client with the same metadata, {client_id} deleted",
        ),
        checks=(
            f"grants: {', '.join(map(str, registered.get('grant_types', [])))}",
            *(f"also held by {agent}" for agent in other_holders(ctx, params.agent, ref, "client_id")),
            "tokens that it was issued before live on: oidc.revoke-token ends them",
        ),
    )


def _capture(ctx: Context, params: RotateClientParams) -> Record:
    ref = held(ctx, params, _KIND)
    issuer, client_id = identity(ref)
    value = ctx.world.secrets.current(params.agent, params.name)
    accepted, answer = ctx.world.oidc.authenticates(issuer, value)
    return {
        "ref": as_record(ref),
        "mark": mark(value),
        "worked_before": accepted,
        "answer_before": answer,
        "metadata": sealed(_metadata(_read(ctx, issuer, client_id))),
    }


def _apply(ctx: Context, params: RotateClientParams, captured: Record) -> Record:
    store = ctx.world.secrets
    issuer, old_id = identity(from_record(captured["ref"]))
    present = held(ctx, params, _KIND)
    current = store.current(params.agent, params.name)
    if mark(current) != captured["mark"] and ctx.world.oidc.authenticates(issuer, current)[0]:
        following = present  # an earlier run came to its end, and nobody has changed it since
    else:
        following = store.staged_ref(params.agent, params.name) or _issue(ctx, params, captured)
    left = ""
    if identity(following)[1] != old_id:
        left = _delete(ctx, issuer, old_id)
    store.promote(params.agent, params.name, keep_old=True)  # the proof is about the first
    return {"issuer": issuer, "client_id": identity(following)[1], "replaced": old_id, "left": left}


def _issue(ctx: Context, params: RotateClientParams, captured: Record) -> CredentialRef:
    """The reference of what was staged: the same client with a new secret, or a new client."""
    store, oidc = ctx.world.secrets, ctx.world.oidc
    ref = from_record(captured["ref"])
    issuer, client_id = identity(held(ctx, params, _KIND))  # a replacement's own, if that is what was refused
    ref = replace(ref, identifiers={**ref.identifiers, "client_id": client_id})
    old_secret = _secret(store.current(params.agent, params.name))
    asked_before = store.begin(params.agent, params.name)
    if params.replace:
        return _replace(ctx, params, captured, ref)
    ours = _registration(ctx, issuer, client_id)
    ours_value = store.current(MANAGER, ours.name)
    try:
        answer = oidc.registration(issuer, ours.identifiers["uri"], ours_value) if asked_before else {}
        if _secret_of(answer) in ("", old_secret):
            answer = oidc.registration_update(
                issuer, ours.identifiers["uri"], ours_value, unsealed(captured["metadata"])
            )
    except Refused:
        if not asked_before:
            raise
        answer = {}  # the token that managed it was replaced by the answer that was lost
    if fresh := answer.get("registration_access_token"):
        # First: without it the client can be neither read nor deleted, whereas the secret can be read again with it.
        uri = str(answer.get("registration_client_uri") or ours.identifiers["uri"])
        store.put(MANAGER, replace(ours, identifiers={**ours.identifiers, "uri": uri}), str(fresh))
    if _secret_of(answer) and _secret_of(answer) != old_secret:
        store.stage(params.agent, ref, _like(store.current(params.agent, params.name), answer))
        return ref
    return _replace(ctx, params, captured, ref)


def _replace(ctx: Context, params: RotateClientParams, captured: Record, ref: CredentialRef) -> CredentialRef:
    """A new client with the same metadata, staged."""
    store = ctx.world.secrets
    issuer, _ = identity(ref)
    metadata = {key: value for key, value in unsealed(captured["metadata"]).items() if key != "client_id"}
    answer = ctx.world.oidc.register(issuer, metadata)
    if not _secret_of(answer):
        raise Refused(f"{issuer} registered {str(answer['client_id'])[:128]} without a secret", hint="delete it there")
    new_id = str(answer["client_id"])
    if answer.get("registration_access_token"):
        name = f"oidc-{hashlib.sha256(f'{issuer} {new_id}'.encode()).hexdigest()[:16]}"
        identifiers = {"issuer": issuer, "client_id": new_id, "uri": str(answer.get("registration_client_uri", ""))}
        registration = CredentialRef(kind=_REGISTRATION, name=name, identifiers=identifiers)
        store.put(MANAGER, registration, str(answer["registration_access_token"]))
    following = replace(ref, identifiers={**ref.identifiers, "client_id": new_id})
    store.stage(params.agent, following, _like(store.current(params.agent, params.name), answer))
    return following


def _delete(ctx: Context, issuer: str, client_id: str) -> str:
    """Delete the old client; empty, or the issuer's refusal, by which it answers a second deletion too."""
    ours = _registration(ctx, issuer, client_id)
    try:
        ctx.world.oidc.registration_delete(
            issuer, ours.identifiers["uri"], ctx.world.secrets.current(MANAGER, ours.name)
        )
    except Refused as error:
        return error.message
    return ""


def _secret(value: str) -> str:
    try:
        return str(json.loads(value)["client_secret"])
    except (ValueError, KeyError, TypeError):
        return ""


def _secret_of(answer: dict[str, Any]) -> str:
    return str(answer.get("client_secret") or "")


def _like(old: str, answer: dict[str, Any]) -> str:
    """The old credential's JSON with the new id and secret in it; what else it holds stays."""
    try:
        raw: dict[str, Any] = dict(json.loads(old))
    except (ValueError, TypeError):
        raw = {}
    return json.dumps(raw | {"client_id": answer["client_id"], "client_secret": answer["client_secret"]})


def _verify(ctx: Context, params: RotateClientParams, captured: Record, outcome: Record) -> Verification:
    oidc, issuer, missing = ctx.world.oidc, outcome["issuer"], []
    current = ctx.world.secrets.current(params.agent, params.name)
    works, new_answer = watch_accepted(lambda: oidc.authenticates(issuer, current), 0.0)
    old = value_with(ctx, params.agent, params.name, captured["mark"])
    if old is None:
        refused, old_answer = True, "not used: its value was discarded"
        missing.append("the old secret was not used")
    else:
        refused, old_answer = watch_refused(lambda: oidc.authenticates(issuer, old), 0.0)
    if captured["worked_before"] is not True:
        missing.append("the old secret was not seen to work before")
    verified = refused and works and mark(current) != captured["mark"]
    new_id, old_id = outcome["client_id"], outcome["replaced"]
    proof = [
        f"old secret of {old_id} used: {'refused' if refused else 'ACCEPTED'} ({old_answer})",
        f"new secret of {new_id} used: {'accepted' if works else 'REFUSED'} ({new_answer})",
    ]
    if outcome["left"]:
        proof.append(f"deleting {old_id} was refused: {outcome['left']}")
    if new_id != old_id:
        proof.append(
            f"{issuer} keeps secrets, so the client is a new one: what {old_id} was granted must be granted anew"
        )
    return Verification(
        verified=verified,
        enforcement=enforcement(verified=verified, missing=tuple(missing)),
        proof="; ".join([*proof, *missing]),
        details={"client_id": new_id, "replaced": old_id, "left": outcome["left"], "missing": missing},
    )


def _recheck(ctx: Context, params: RotateClientParams, captured: Record, outcome: Record) -> Verification | None:
    """The old secret alone: the new one is its holder's to replace."""
    old = value_with(ctx, params.agent, params.name, captured["mark"])
    if old is None:
        return None
    accepted, answer = ctx.world.oidc.authenticates(outcome["issuer"], old)
    return rechecked(
        holds=not accepted,
        proof=f"old secret of {outcome['replaced']} used: {'ACCEPTED' if accepted else 'refused'} ({answer})",
    )


ACTION: Action[RotateClientParams] = Action(
    id="oidc.rotate-client",
    summary="Replace the secret of the agent's OAuth client, or the client where its issuer keeps secrets.",
    phase=Phase.ERADICATE,
    reversibility=Reversibility.IRREVERSIBLE,
    needs=frozenset({"oidc:client-configuration", "oidc:registration"}),
    scope="one client at one issuer, whoever holds its secret",
    openc2="update",
    d3fend="D3-CRO",
    params=RotateClientParams,
    key=credential_key,
    plan=_plan,
    capture=_capture,
    apply=_apply,
    verify=_verify,
    recheck=_recheck,
)
