"""Replace an agent's Vault token: a new one is issued and kept for it, the old one dies with its children and leases.

Order: the new token is stored durably before the old one is revoked, and it becomes current last. Whatever step a crash
hits, running it again ends in the same place: a token whose value was lost between issuer and store is found by the
tags in its metadata and revoked. The old value stays in the secret store, so that the proof can use it, until
`credential.discard-old`.

The new token lives for `vault.reissue_ttl` at most, never longer than the old one did. Undoing it gives the agent one
with the old one's own time to live; the old value cannot be brought back.
"""

from __future__ import annotations

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
    other_holders,
    rechecked,
    seconds,
)
from clawback.model import CredentialRef, Phase

__all__ = ["ACTION"]

_KIND, _REVOKE = "vault-token", "credential.revoke"
_REISSUED, _RESTORED = "reissued", "restored"


def _plan(ctx: Context, params: CredentialParams) -> Plan:
    ref = held(ctx, params, _KIND)
    accessor = ref.identifiers["accessor"]
    alive, facts = ctx.world.vault.token_lookup(accessor), _facts(ctx, accessor)
    policies, _ = _grants(ref, facts)
    ttl = _bounded(ctx, ref, facts)
    checks = [
        f"token {accessor}: policies {', '.join(policies)}, {alive['ttl']} s left"
        if alive
        else f"token {accessor}: the issuer no longer knows it"
    ]
    if facts and not facts["path"].startswith("auth/token/"):
        checks.append(f"it was issued at {facts['path']}: whoever holds that login can get another")
    if "root" in policies:
        checks.append("it is a root token: so would the new one be")
    checks += [f"also held by {agent}" for agent in other_holders(ctx, params.agent, ref, "accessor")]
    return Plan(
        changes=(
            f"- {params.agent}/{params.name}: token {accessor} and all its children and leases",
            f"+ {params.agent}/{params.name}: a new token, policies {', '.join(policies)}, {ttl} s to live",
        ),
        checks=tuple(checks),
    )


def _capture(ctx: Context, params: CredentialParams) -> Record:
    ref = held(ctx, params, _KIND)
    facts = _facts(ctx, ref.identifiers["accessor"])
    captured: dict[str, Any] = {"ref": as_record(ref), "facts": facts, "ttl": _bounded(ctx, ref, facts)}
    captured["worked_before"] = None
    if not (facts or {}).get("num_uses"):  # trying a token with few uses would use one up
        accepted, answer = ctx.world.vault.token_works(ctx.world.secrets.current(params.agent, params.name))
        captured |= {"worked_before": accepted, "answer_before": answer}
    return captured


def _apply(ctx: Context, params: CredentialParams, captured: Record) -> Record:
    vault, store = ctx.world.vault, ctx.world.secrets
    old = from_record(captured["ref"]).identifiers["accessor"]
    present = held(ctx, params, _KIND)
    first = present.identifiers["accessor"] == old
    if first or vault.token_lookup(present.identifiers["accessor"]) is None:  # or the new one was revoked since
        following = _next(ctx, params, captured, _REISSUED)
        vault.token_revoke(old)
        store.promote(params.agent, params.name, keep_old=not first)
    else:
        following = present
        vault.token_revoke(old)
    return {"accessor": following.identifiers["accessor"], "replaced": old}


def _next(ctx: Context, params: CredentialParams, captured: Record, purpose: str) -> CredentialRef:
    return _staged(ctx, params, purpose) or _issue(ctx, params, captured, purpose)


def _staged(ctx: Context, params: CredentialParams, purpose: str) -> CredentialRef | None:
    """The token that an earlier, interrupted run staged, if it is this step's and still lives."""
    ref = ctx.world.secrets.staged_ref(params.agent, params.name)
    if ref is None:
        return None
    accessor = ref.identifiers["accessor"]
    facts = ctx.world.vault.token_lookup(accessor)
    if facts is None:
        return None
    if not {**_tags(params), **_purpose(ctx, purpose)}.items() <= facts["meta"].items():
        ctx.world.vault.token_revoke(accessor)  # some other step's, never given to anybody
        return None
    return ref


def _issue(ctx: Context, params: CredentialParams, captured: Record, purpose: str) -> CredentialRef:
    """A new token, staged: of the bounded time to live, or, where undoing asks for it, of the old one's own."""
    vault, store = ctx.world.vault, ctx.world.secrets
    present = held(ctx, params, _KIND).identifiers["accessor"]
    if store.begin(params.agent, params.name):
        # An earlier run asked and staged nothing: the issuer may hold a live token that nobody has the value of.
        for lost in vault.token_find(_tags(params)):
            if lost != present:
                vault.token_revoke(lost)
    old, facts = from_record(captured["ref"]), captured["facts"] or {}
    policies, ttl = _grants(old, captured["facts"])
    bound, period = captured["ttl"] if purpose == _REISSUED else 0, int(facts.get("period") or 0)
    value, accessor = vault.token_create(
        policies=policies,
        ttl=_seconds(bound or ttl),
        meta={**(facts.get("meta") or {}), **_tags(params), **_purpose(ctx, purpose)},
        role=facts.get("role") or "",
        period=_seconds(least(period, bound) if period else 0),
        explicit_max_ttl=_seconds(facts.get("explicit_max_ttl")),
        num_uses=int(facts.get("num_uses") or 0),
        renewable=bool(facts.get("renewable", True)),
        orphan=bool(facts.get("orphan", False)),
    )
    ref = replace(old, identifiers={**old.identifiers, "accessor": accessor})
    store.stage(params.agent, ref, value)
    return ref


def _verify(ctx: Context, params: CredentialParams, captured: Record, outcome: Record) -> Verification:
    vault, store = ctx.world.vault, ctx.world.secrets
    old_accessor, missing = outcome["replaced"], []
    gone = vault.token_lookup(old_accessor) is None
    present = held(ctx, params, _KIND).identifiers["accessor"]
    works, new_answer = vault.token_works(store.current(params.agent, params.name))

    old_value = store.old(params.agent, params.name)
    if old_value is None:
        refused, old_answer = True, "not used: its value was discarded"
        missing.append("the old token was not used")
    else:
        accepted, old_answer = vault.token_works(old_value)
        refused = not accepted
    if captured["worked_before"] is not True:
        missing.append("the old token was not seen to work before")
    if (facts := captured["facts"]) and not facts["path"].startswith("auth/token/"):
        missing.append(f"the login at {facts['path']} that issued it still stands")
    if (new := vault.token_lookup(present)) and not 0 < new["ttl"] <= captured["ttl"]:
        missing.append(f"the new token lives for {new['ttl'] or 'any number of'} s: its role says so")

    verified = gone and refused and works and present != old_accessor
    return Verification(
        verified=verified,
        enforcement=enforcement(verified=verified, missing=tuple(missing)),
        proof="; ".join(
            [
                f"old token used: {'refused' if refused else 'ACCEPTED'} ({old_answer})",
                f"its accessor {old_accessor} is {'unknown to the issuer' if gone else 'STILL LIVE'}",
                f"new token used: {'accepted' if works else 'REFUSED'} ({new_answer})",
                *missing,
            ]
        ),
        details={"accessor": present, "replaced": old_accessor, "missing": missing},
    )


def _recheck(ctx: Context, params: CredentialParams, _captured: Record, outcome: Record) -> Verification:
    """The old token alone: the new one is its holder's to replace."""
    vault, old = ctx.world.vault, outcome["replaced"]
    gone = vault.token_lookup(old) is None
    value = ctx.world.secrets.old(params.agent, params.name)
    accepted, answer = vault.token_works(value) if value is not None else (False, "its value was discarded")
    return rechecked(
        holds=gone and not accepted,
        proof=f"accessor {old} is {'unknown to the issuer' if gone else 'LIVE'}; the old token used: "
        f"{'ACCEPTED' if accepted else 'refused'} ({answer})",
    )


def _revert(ctx: Context, params: CredentialParams, captured: Record) -> None:
    vault, store = ctx.world.vault, ctx.world.secrets
    present = held(ctx, params, _KIND).identifiers["accessor"]
    facts = vault.token_lookup(present)
    if facts is not None and present == captured["ref"]["identifiers"]["accessor"]:
        staged = store.staged_ref(params.agent, params.name)
        if staged is not None:  # cut off before the old one was touched: what was issued was given to nobody
            vault.token_revoke(staged.identifiers["accessor"])
    elif not _restored(facts):
        _next(ctx, params, captured, _RESTORED)
        vault.token_revoke(present)
        store.promote(params.agent, params.name)
    for accessor in _short_lived(ctx, params):  # one that was issued in an answer that never came, too
        vault.token_revoke(accessor)
    store.abandon(params.agent, params.name)


def _short_lived(ctx: Context, params: CredentialParams) -> list[str]:
    """What applying issued and is alive."""
    return ctx.world.vault.token_find({**_tags(params), **_purpose(ctx, _REISSUED)})


def _verify_reverted(ctx: Context, params: CredentialParams, captured: Record) -> Verification:
    present = held(ctx, params, _KIND).identifiers["accessor"]
    facts = ctx.world.vault.token_lookup(present)
    works, answer = ctx.world.vault.token_works(ctx.world.secrets.current(params.agent, params.name))
    untouched = present == captured["ref"]["identifiers"]["accessor"]
    left = _short_lived(ctx, params)
    seen = works and not left and (untouched or _restored(facts))
    missing = () if untouched else ("the old value stays dead",)
    return Verification(
        verified=seen,
        enforcement=enforcement(verified=seen, missing=missing),
        proof="; ".join(
            [
                f"the agent's token {present} used: {'accepted' if works else 'REFUSED'} ({answer})",
                "it is the old one" if untouched else f"{facts['ttl'] if facts else 0} s to live",
                *([] if untouched or _restored(facts) else ["it is NOT one with the old one's time to live"]),
                *([f"{len(left)} tokens issued in between STILL LIVE"] if left else []),
                *missing,
            ]
        ),
    )


def _restored(facts: dict[str, Any] | None) -> bool:
    return facts is not None and facts["meta"].get("clawback_purpose") == _RESTORED


def _facts(ctx: Context, accessor: str) -> dict[str, Any] | None:
    """As the issuer knows the token, or knew it before this incident revoked it as one that was traced."""
    if (known := ctx.world.vault.token_lookup(accessor)) is not None:
        return known
    for receipt in ctx.incident.receipts:
        revoked = (receipt.params.get("kind"), receipt.params.get("id")) == (_KIND, accessor)
        if receipt.action == _REVOKE and revoked and (facts := receipt.captured.get("facts")):
            return dict(facts)
    return None


def _grants(ref: CredentialRef, facts: dict[str, Any] | None) -> tuple[list[str], int]:
    """Policies and seconds to live that the old token had; of a dead one, what the reference says."""
    if facts:
        return list(facts["policies"]), int(facts["creation_ttl"] or 0)
    named = ref.identifiers.get("policies", "")
    policies = [policy.strip() for policy in named.split(",") if policy.strip()]
    return policies, seconds(ref.identifiers.get("ttl", ""))


def _bounded(ctx: Context, ref: CredentialRef, facts: dict[str, Any] | None) -> int:
    return least(ctx.world.vault.reissue.ttl, _grants(ref, facts)[1])


def _seconds(number: Any) -> str:
    return f"{int(number)}s" if number else ""


def _tags(params: CredentialParams) -> dict[str, str]:
    return {"clawback_agent": params.agent, "clawback_step": f"vault.rotate-token/{params.name}"}


def _purpose(ctx: Context, purpose: str) -> dict[str, str]:
    return {"clawback_incident": ctx.incident.id, "clawback_purpose": purpose}


ACTION: Action[CredentialParams] = Action(
    id="vault.rotate-token",
    summary="Replace the agent's Vault token; revoke the old one with its children and leases.",
    phase=Phase.ERADICATE,
    reversibility=Reversibility.COMPENSABLE,
    needs=frozenset(
        {
            "vault:auth/token/accessors",
            "vault:auth/token/create",
            "vault:auth/token/lookup-accessor",
            "vault:auth/token/revoke-accessor",
        }
    ),
    scope="one token of one agent, the tokens made with it, and their leases",
    openc2="update",
    d3fend="D3-CRO",
    params=CredentialParams,
    key=credential_key,
    plan=_plan,
    capture=_capture,
    apply=_apply,
    verify=_verify,
    recheck=_recheck,
    revert=_revert,
    verify_reverted=_verify_reverted,
)
