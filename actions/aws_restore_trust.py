"""Put back the trust policy that this incident's `aws.close-trust` took away."""

from __future__ import annotations

from clawback.action import Action, Context, Plan, Record, Reversibility, Verification
from clawback.actions._credentials import (
    CredentialParams,
    access_key_of,
    as_record,
    credential_key,
    enforcement,
    from_record,
    held,
    sealed,
    unsealed,
    verified_receipt,
    watch_accepted,
)
from clawback.errors import Refused
from clawback.model import Enforcement, Phase

__all__ = ["ACTION"]


def _closed(ctx: Context, params: CredentialParams) -> Record:
    receipt = verified_receipt(ctx, "aws.close-trust", params)
    if receipt is None:
        raise Refused(
            f"nothing to put back for {params.agent}/{params.name}: no verified aws.close-trust in this incident",
            hint="the trust policy is as somebody else left it",
        )
    return receipt.captured


def _plan(ctx: Context, params: CredentialParams) -> Plan:
    closed = _closed(ctx, params)
    role = closed["role"]
    same = ctx.world.cloud.trust(role) == unsealed(closed["trust"])
    return Plan(
        changes=()
        if same
        else (f"- {role}: trust policy as it is", f"+ {role}: trust policy as it was before closing"),
        checks=("it is back already",) if same else (),
    )


def _capture(ctx: Context, params: CredentialParams) -> Record:
    closed = _closed(ctx, params)
    return {
        "ref": as_record(held(ctx, params, "aws-session")),
        "role": closed["role"],
        "trust": closed["trust"],
        "present": sealed(ctx.world.cloud.trust(closed["role"])),
    }


def _apply(ctx: Context, params: CredentialParams, captured: Record) -> Record:
    del params
    ctx.world.cloud.trust_set(captured["role"], unsealed(captured["trust"]))
    return {"role": captured["role"]}


def _verify(ctx: Context, params: CredentialParams, captured: Record, outcome: Record) -> Verification:
    cloud, role = ctx.world.cloud, outcome["role"]
    missing: list[str] = []
    same = cloud.trust(role) == unsealed(captured["trust"])
    proof = [f"{role}'s trust policy {'equals' if same else 'DIFFERS FROM'} the one before closing"]
    verified = same
    key = access_key_of(ctx, params.agent, from_record(captured["ref"]).identifiers.get("user", ""))
    if key is not None and cloud.works(key)[0]:
        accepted, answer = watch_accepted(lambda: cloud.assume(key, role, "clawback-probe"), cloud.settle)
        verified = verified and accepted
        proof.append(f"AssumeRole with the agent's live key: {'accepted' if accepted else 'REFUSED'} ({answer})")
    else:
        missing.append("the agent has no live key to try AssumeRole with")
    return Verification(
        verified=verified,
        enforcement=enforcement(verified=verified, missing=tuple(missing)),
        proof="; ".join([*proof, *missing]),
        details={"missing": missing},
    )


def _revert(ctx: Context, params: CredentialParams, captured: Record) -> None:
    del params
    ctx.world.cloud.trust_set(captured["role"], unsealed(captured["present"]))


def _verify_reverted(ctx: Context, params: CredentialParams, captured: Record) -> Verification:
    del params
    same = ctx.world.cloud.trust(captured["role"]) == unsealed(captured["present"])
    return Verification(
        verified=same,
        enforcement=Enforcement.FULL if same else Enforcement.NONE,
        proof=f"{captured['role']}'s trust policy is {'as' if same else 'NOT as'} it was before it was put back",
    )


ACTION: Action[CredentialParams] = Action(
    id="aws.restore-trust",
    summary="Put back the role's trust policy that was captured when it was closed.",
    phase=Phase.RECOVER,
    reversibility=Reversibility.REVERSIBLE,
    needs=frozenset({"iam:GetRole", "iam:UpdateAssumeRolePolicy"}),
    scope="the trust policy of one role",
    openc2="restore",
    d3fend="D3-RUAA",
    params=CredentialParams,
    key=credential_key,
    plan=_plan,
    capture=_capture,
    apply=_apply,
    verify=_verify,
    revert=_revert,
    verify_reverted=_verify_reverted,
)
