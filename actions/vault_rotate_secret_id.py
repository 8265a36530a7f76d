"""Replace an agent's AppRole secret-id: the old one is destroyed, tokens that were got with it die, a new one is kept.

Order: the new secret-id is stored durably before the old one is destroyed, then the tokens go (no login can make more
by then), and it becomes current last. One whose value a crash lost is found by its metadata and destroyed. The new one
lives for a short time and for a few logins, never more than the old one. Where the role leaves room it is good for one
login more than that: the proof uses it, so that the agent's own are not spent.

Vault does not say which secret-id a token came from. Tokens of the role that carry the metadata of the secret-id are
taken for its own; where it has none, that is every token of the role.

Undoing it gives the agent a secret-id with the old one's own bounds: the old value cannot be brought back.
"""

from __future__ import annotations

from typing import Any

from clawback.action import Action, Context, Plan, Record, Reversibility, Verification
from clawback.actions._approle import KIND, bounds_of, issued, logins, made, meta_of, place, restored, role_of
from clawback.actions._credentials import (
    CredentialParams,
    as_record,
    enforcement,
    held,
    other_holders,
    rechecked,
)
from clawback.model import Phase

__all__ = ["ACTION", "SecretIdParams"]

_SHOWN = 20


class SecretIdParams(CredentialParams):
    """`every`: all secret-ids of the role are destroyed, whoever holds them, and all tokens of the role."""

    every: bool = False


def _plan(ctx: Context, params: SecretIdParams) -> Plan:
    ref = held(ctx, params, KIND)
    mount, role = place(ref)
    bounds = role_of(ctx, mount, role)
    accessor = ref.identifiers["accessor"]
    facts = ctx.world.vault.approle.facts(mount, role, accessor)
    everyone = [x for x in ctx.world.vault.approle.secret_ids(mount, role) if x != accessor]
    tokens = logins(ctx, mount, meta_of(role, facts, every=params.every))
    ttl, uses, _ = bounds_of(ctx, bounds, facts)
    checks = [
        f"secret-id {accessor}: {facts['uses'] or 'any number of'} logins left"
        if facts
        else f"secret-id {accessor}: the issuer no longer knows it",
        f"{len(everyone)} other secret-ids of role {role}" + ("" if params.every else ", which stay"),
    ]
    if not params.every and not (facts and facts["meta"]):
        checks.append("it has no metadata: its tokens cannot be told from those of the role's others, which go too")
    if bounds["kind"] == "batch":
        checks.append("the role gives batch tokens: nothing revokes those")
    checks += [f"also held by {agent}" for agent in other_holders(ctx, params.agent, ref, "accessor")]
    doomed = [f"- secret-id {x} of role {role}" for x in everyone[:_SHOWN]] if params.every else []
    return Plan(
        changes=(
            f"- {params.agent}/{params.name}: secret-id {accessor} of role {role}",
            *doomed,
            *(f"- its login, accessor {x}, with its children and leases" for x in tokens[:_SHOWN]),
            *((f"- … and {len(tokens) - _SHOWN} more logins",) if len(tokens) > _SHOWN else ()),
            f"+ {params.agent}/{params.name}: a new secret-id, {ttl} s, {uses} logins",
        ),
        checks=tuple(checks),
    )


def _capture(ctx: Context, params: SecretIdParams) -> Record:
    ref = held(ctx, params, KIND)
    mount, role = place(ref)
    approle, bounds = ctx.world.vault.approle, role_of(ctx, mount, role)
    facts = approle.facts(mount, role, ref.identifiers["accessor"])
    ttl, uses, all_uses = bounds_of(ctx, bounds, facts)
    captured: dict[str, Any] = {
        "ref": as_record(ref),
        "mount": mount,
        "role": role,
        "bounds": bounds,
        "facts": facts,
        "issue": {"ttl": ttl, "uses": uses, "issued": all_uses},
        "logins": logins(ctx, mount, meta_of(role, facts, every=params.every)),
        "worked_before": None,
    }
    if facts is not None and not facts["uses"]:  # a login of a counted one would use one up
        value = ctx.world.secrets.current(params.agent, params.name)
        accepted, answer = approle.logs_in(mount, bounds["role_id"], value)
        captured |= {"worked_before": accepted, "answer_before": answer}
    return captured


def _apply(ctx: Context, params: SecretIdParams, captured: Record) -> Record:
    approle, store = ctx.world.vault.approle, ctx.world.secrets
    mount, role, old = captured["mount"], captured["role"], captured["ref"]["identifiers"]["accessor"]
    present = held(ctx, params, KIND)
    first = present.identifiers["accessor"] == old
    lives = not first and approle.facts(mount, role, present.identifiers["accessor"]) is not None
    following = present if lives else issued(ctx, params, captured, captured["issue"], "rotated")
    ours = following.identifiers["accessor"]
    approle.destroy(mount, role, old)
    if params.every:
        for accessor in approle.secret_ids(mount, role):
            if accessor != ours:
                approle.destroy(mount, role, accessor)
    _revoke(ctx, mount, captured, every=params.every)
    # Where the new one was destroyed since, what is current is dead: the proof needs the old one before it.
    store.promote(params.agent, params.name, keep_old=not first)
    return {"accessor": ours, "replaced": old}


def _revoke(ctx: Context, mount: str, captured: Record, *, every: bool) -> None:
    vault, meta = ctx.world.vault, meta_of(captured["role"], captured["facts"], every=every)
    for accessor in {*captured["logins"], *logins(ctx, mount, meta)}:
        vault.token_revoke(accessor)


def _verify(ctx: Context, params: SecretIdParams, captured: Record, outcome: Record) -> Verification:
    approle, store = ctx.world.vault.approle, ctx.world.secrets
    mount, role, role_id = captured["mount"], captured["role"], captured["bounds"]["role_id"]
    missing: list[str] = []

    gone = approle.facts(mount, role, outcome["replaced"]) is None
    old_value = store.old(params.agent, params.name)
    if old_value is None:
        refused, answer = True, "not used: its value was discarded"
        missing.append("the old secret-id was not used")
    else:
        accepted, answer = approle.logs_in(mount, role_id, old_value)
        refused = not accepted
    if captured["worked_before"] is not True:
        missing.append("the old secret-id was not seen to work before")

    meta = meta_of(role, captured["facts"], every=params.every)
    alive = sorted({*logins(ctx, mount, meta), *(x for x in captured["logins"] if ctx.world.vault.token_lookup(x))})
    if captured["bounds"]["kind"] == "batch":
        missing.append("batch tokens got with it live until their time is up")
    others = [x for x in approle.secret_ids(mount, role) if x != outcome["accessor"]] if params.every else []

    present = held(ctx, params, KIND).identifiers["accessor"]
    works, new_answer = _accepted(ctx, params, captured, missing)
    verified = gone and refused and not alive and not others and works and present == outcome["accessor"]
    return Verification(
        verified=verified,
        enforcement=enforcement(verified=verified, missing=tuple(missing)),
        proof="; ".join(
            [
                f"login with the old secret-id: {'refused' if refused else 'ACCEPTED'} ({answer})",
                f"its accessor {outcome['replaced']} is {'unknown to the issuer' if gone else 'STILL LIVE'}",
                f"{len(alive)} of its logins STILL LIVE" if alive else f"its {len(captured['logins'])} logins are dead",
                *([f"{len(others)} other secret-ids STILL LIVE"] if others else []),
                f"the new secret-id: {'accepted' if works else 'REFUSED'} ({new_answer})",
                *missing,
            ]
        ),
        details={"accessor": present, "replaced": outcome["replaced"], "alive": alive[:_SHOWN], "missing": missing},
    )


def _accepted(ctx: Context, params: SecretIdParams, captured: Record, missing: list[str]) -> tuple[bool, str]:
    """Whether the agent's present secret-id logs in, without spending a login that is the agent's."""
    approle, bounds = ctx.world.vault.approle, captured["issue"]
    mount, role = captured["mount"], captured["role"]
    value = ctx.world.secrets.current(params.agent, params.name)
    facts = approle.facts_of(mount, role, value)
    if facts is None:
        return False, "the issuer does not know it"
    left = facts["uses"]
    if left and left < bounds["issued"]:
        return True, f"it has logged in; {left} logins are left"
    if left and bounds["issued"] == bounds["uses"]:
        missing.append("the new secret-id was not used, so as not to spend one of its logins")
        return True, f"known by its value; {left} logins are left"
    return approle.logs_in(mount, captured["bounds"]["role_id"], value)


def _restored_bounds(captured: Record) -> dict[str, int]:
    """What the old secret-id had when it was captured, or the role's own bounds where it was dead already."""
    own = captured["facts"] or captured["bounds"]
    return {"ttl": own["ttl"], "uses": own["uses"], "issued": own["uses"]}


def _recheck(ctx: Context, params: SecretIdParams, captured: Record, outcome: Record) -> Verification:
    """The old secret-id alone: the new one is its holder's to use up."""
    approle, old = ctx.world.vault.approle, outcome["replaced"]
    gone = approle.facts(captured["mount"], captured["role"], old) is None
    value = ctx.world.secrets.old(params.agent, params.name)
    known = value is not None and approle.facts_of(captured["mount"], captured["role"], value) is not None
    return rechecked(holds=gone and not known, proof=f"accessor {old} is {'unknown to the issuer' if gone else 'LIVE'}")


def _revert(ctx: Context, params: SecretIdParams, captured: Record) -> None:
    """Issue one with the old one's bounds, and end the short-lived one in its place."""
    approle, store = ctx.world.vault.approle, ctx.world.secrets
    mount, role = captured["mount"], captured["role"]
    present = held(ctx, params, KIND).identifiers["accessor"]
    facts = approle.facts(mount, role, present)
    if facts is not None and present == captured["ref"]["identifiers"]["accessor"]:
        staged = store.staged_ref(params.agent, params.name)
        if staged is not None:  # cut off before the old one was touched: what was issued was given to nobody
            approle.destroy(mount, role, staged.identifiers["accessor"])
    elif not restored(facts, params):
        issued(ctx, params, captured, _restored_bounds(captured), "restored")
        approle.destroy(mount, role, present)
        store.promote(params.agent, params.name)
    for accessor in made(ctx, params, captured, "rotated"):  # one that was issued in an answer that never came, too
        approle.destroy(mount, role, accessor)
    store.abandon(params.agent, params.name)


def _verify_reverted(ctx: Context, params: SecretIdParams, captured: Record) -> Verification:
    approle = ctx.world.vault.approle
    mount, role = captured["mount"], captured["role"]
    facts = approle.facts_of(mount, role, ctx.world.secrets.current(params.agent, params.name))
    if facts is not None and facts["accessor"] == captured["ref"]["identifiers"]["accessor"]:
        return Verification(
            verified=True, enforcement=enforcement(verified=True, missing=()), proof="the old secret-id is in force"
        )
    others = made(ctx, params, captured, "rotated")
    seen = restored(facts, params) and not others
    left = "unknown to the issuer" if facts is None else f"good for {facts['uses'] or 'any number of'} logins"
    missing, has = "the old value stays dead", "has" if restored(facts, params) else "has NOT"
    return Verification(
        verified=seen,
        enforcement=enforcement(verified=seen, missing=(missing,)),
        proof=f"the agent's secret-id is {left} and {has} the bounds of the old; "
        f"{len(others)} issued in between {'are STILL LIVE' if others else 'are alive'}; {missing}",
    )


ACTION: Action[SecretIdParams] = Action(
    id="vault.rotate-secret-id",
    summary="Replace the agent's AppRole secret-id; destroy the old one and revoke the tokens got with it.",
    phase=Phase.ERADICATE,
    reversibility=Reversibility.COMPENSABLE,
    needs=frozenset(
        {
            "vault:auth/approle/role/+",
            "vault:auth/approle/role/+/role-id",
            "vault:auth/approle/role/+/secret-id",
            "vault:auth/approle/role/+/secret-id-accessor/destroy",
            "vault:auth/approle/role/+/secret-id-accessor/lookup",
            "vault:auth/approle/role/+/secret-id/lookup",
            "vault:auth/token/accessors",
            "vault:auth/token/lookup-accessor",
            "vault:auth/token/revoke-accessor",
        }
    ),
    scope="one secret-id of one role, or all of that role, and the tokens that were got with them",
    openc2="update",
    d3fend="D3-CRO",
    params=SecretIdParams,
    key=lambda params: f"{params.agent}/{params.name}{'/every' if params.every else ''}",
    plan=_plan,
    capture=_capture,
    apply=_apply,
    verify=_verify,
    recheck=_recheck,
    revert=_revert,
    verify_reverted=_verify_reverted,
)
