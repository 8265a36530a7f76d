"""Take back the wrapping token by which an agent was to be given a secret, and wrap the present secret for one use.

A wrapping token gives its secret out once. One that waits is revoked, so that whoever has it gets nothing; one that is
spent already gave its secret to the agent or to somebody else, and nobody can tell: then the secret itself has to be
replaced first, and this says so. What is wrapped is `{"value": …}`, the present value of the agent's credential `of`.

The proof spends a token of its own, never the agent's. A wrapping token whose value a crash lost was given to nobody,
and ends with its time. A revoked one cannot be brought back.
"""

from __future__ import annotations

import secrets
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
    least,
    rechecked,
)
from clawback.errors import InvalidInput
from clawback.model import CredentialRef, Phase

__all__ = ["ACTION"]

_KIND = "vault-wrapped"
_PROBE_SECONDS = 60


def _inside(ref: CredentialRef) -> str:
    """The name of the credential that it delivers."""
    name = ref.identifiers.get("of", "")
    if not name or name == ref.name or not ref.identifiers.get("accessor"):
        raise InvalidInput(
            f"{ref.name} does not say what it delivers", hint="store it with --id of=NAME and --id accessor=ACCESSOR"
        )
    return name


def _spent(ref: CredentialRef) -> str:
    return f"it was spent or over before: whoever unwrapped it knows {_inside(ref)}, which must be replaced first"


def _plan(ctx: Context, params: CredentialParams) -> Plan:
    ref = held(ctx, params, _KIND)
    accessor, inside = ref.identifiers["accessor"], _inside(ref)
    facts = ctx.world.vault.token_lookup(accessor)
    ctx.world.secrets.version(params.agent, inside)
    ttl = least(ctx.world.vault.reissue.ttl, int((facts or {}).get("creation_ttl") or 0))
    return Plan(
        changes=(
            f"- {params.agent}/{params.name}: wrapping token {accessor}",
            f"+ {params.agent}/{params.name}: a new one around the present {inside}, for one use within {ttl} s",
        ),
        checks=(f"it waits, {facts['ttl']} s left" if facts else _spent(ref),),
    )


def _capture(ctx: Context, params: CredentialParams) -> Record:
    ref = held(ctx, params, _KIND)
    inside = _inside(ref)
    facts = ctx.world.vault.token_lookup(ref.identifiers["accessor"])
    waits, answer = ctx.world.vault.wrapping.waits(ctx.world.secrets.current(params.agent, params.name))
    ttl = least(ctx.world.vault.reissue.ttl, int((facts or {}).get("creation_ttl") or 0))
    captured: dict[str, Any] = {"ref": as_record(ref), "inside": inside, "ttl": ttl}
    return captured | {"waited_before": waits, "answer_before": answer}


def _apply(ctx: Context, params: CredentialParams, captured: Record) -> Record:
    vault, store = ctx.world.vault, ctx.world.secrets
    old = captured["ref"]["identifiers"]["accessor"]
    present = held(ctx, params, _KIND)
    first = present.identifiers["accessor"] == old
    following = present if not first and _is_good(ctx, params, captured, present) else _next(ctx, params, captured)
    vault.token_revoke(old)
    if not first and following != present:
        vault.token_revoke(present.identifiers["accessor"])
    store.promote(params.agent, params.name, keep_old=not first)
    return {"accessor": following.identifiers["accessor"], "replaced": old}


def _next(ctx: Context, params: CredentialParams, captured: Record) -> CredentialRef:
    """The token that an earlier run staged, if it lives and holds the present value; else a new one, staged."""
    vault, store = ctx.world.vault, ctx.world.secrets
    staged = store.staged_ref(params.agent, params.name)
    if staged is not None:
        if _is_good(ctx, params, captured, staged):
            return staged
        vault.token_revoke(staged.identifiers["accessor"])
    holds = store.version(params.agent, captured["inside"])
    value = store.current(params.agent, captured["inside"])
    token, accessor = vault.wrapping.wrap({"value": value}, ttl=captured["ttl"])
    old = from_record(captured["ref"])
    ref = replace(old, identifiers={**old.identifiers, "accessor": accessor, "holds": holds})
    store.stage(params.agent, ref, token)
    return ref


def _is_good(ctx: Context, params: CredentialParams, captured: Record, ref: CredentialRef) -> bool:
    """It waits, and what is in it is the value that is current now."""
    now = ctx.world.secrets.version(params.agent, captured["inside"])
    return ref.identifiers.get("holds") == now and ctx.world.vault.token_lookup(ref.identifiers["accessor"]) is not None


def _verify(ctx: Context, params: CredentialParams, captured: Record, outcome: Record) -> Verification:
    vault, store = ctx.world.vault, ctx.world.secrets
    ref, missing = from_record(captured["ref"]), list[str]()
    present = held(ctx, params, _KIND)
    gone = vault.token_lookup(outcome["replaced"]) is None
    old = store.old(params.agent, params.name)
    if old is None:
        refused, answer = True, "not used: its value was discarded"
        missing.append("the old wrapping token was not used")
    else:
        refused, answer = _refused(ctx, old)
    if not captured["waited_before"]:
        missing.append(_spent(ref))
    waits, new_answer = vault.wrapping.waits(store.current(params.agent, params.name))
    holds = _is_good(ctx, params, captured, present)
    once, twice = _once_and_only_once(ctx)
    around = f"{'the present' if holds else 'NOT the present'} {captured['inside']}"
    verified = gone and refused and waits and holds and once and not twice
    verified = verified and present.identifiers["accessor"] == outcome["accessor"]
    return Verification(
        verified=verified,
        enforcement=enforcement(verified=verified, missing=tuple(missing)),
        proof="; ".join(
            [
                f"old wrapping token used: {'refused' if refused else 'STILL GOOD'} ({answer})",
                f"its accessor {outcome['replaced']} is {'unknown to the issuer' if gone else 'STILL LIVE'}",
                f"the new one {'waits' if waits else 'does NOT wait'} ({new_answer}), around {around}",
                f"one of the proof's own unwraps {'once' if once else 'NOT ONCE'}{', and AGAIN' * twice}",
                *missing,
            ]
        ),
        details={"accessor": present.identifiers["accessor"], "missing": missing},
    )


def _refused(ctx: Context, token: str) -> tuple[bool, str]:
    """Try to unwrap it, unless the server says that it waits still: then it is revoked by the next attempt, unspent."""
    waits, answer = ctx.world.vault.wrapping.waits(token)
    if waits:
        return False, answer
    got, answer = ctx.world.vault.wrapping.unwrap(token)
    return got is None, answer


def _recheck(ctx: Context, params: CredentialParams, _captured: Record, outcome: Record) -> Verification:
    """The old one alone: the new one is there to be spent."""
    del params
    gone = ctx.world.vault.token_lookup(outcome["replaced"]) is None
    return rechecked(
        holds=gone, proof=f"accessor {outcome['replaced']} is {'unknown to the issuer' if gone else 'LIVE'}"
    )


def _once_and_only_once(ctx: Context) -> tuple[bool, bool]:
    """How this server's wrapping tokens behave, on one that holds nothing of anybody's: (first, second use)."""
    said = {"value": secrets.token_hex(8)}
    token, _ = ctx.world.vault.wrapping.wrap(said, ttl=_PROBE_SECONDS)
    first, _ = ctx.world.vault.wrapping.unwrap(token)
    second, _ = ctx.world.vault.wrapping.unwrap(token)
    return first == said, second is not None


ACTION: Action[CredentialParams] = Action(
    id="vault.rewrap-delivery",
    summary="Revoke the wrapping token that was to deliver the agent's secret; wrap the present one for one use.",
    phase=Phase.ERADICATE,
    reversibility=Reversibility.IRREVERSIBLE,
    needs=frozenset(
        {
            "vault:auth/token/lookup-accessor",
            "vault:auth/token/revoke-accessor",
            "vault:sys/wrapping/lookup",
            "vault:sys/wrapping/unwrap",
            "vault:sys/wrapping/wrap",
        }
    ),
    scope="one wrapping token of one agent",
    openc2="update",
    d3fend="D3-CRO",
    params=CredentialParams,
    key=credential_key,
    plan=_plan,
    capture=_capture,
    apply=_apply,
    verify=_verify,
    recheck=_recheck,
)
