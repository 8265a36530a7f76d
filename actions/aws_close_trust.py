"""Close a role's trust: nobody can become it until the trust policy is put back.

Sessions that exist are not ended by it: that is `aws.refuse-sessions`. Everybody who uses the role is shut out, not the
agent alone. The document that was there is captured whole; reverting, or `aws.restore-trust`, puts it back.
"""

from __future__ import annotations

from typing import Any

from clawback.action import Action, Context, Plan, Record, Reversibility, Verification
from clawback.actions._credentials import (
    CredentialParams,
    access_key_of,
    as_record,
    credential_key,
    enforcement,
    from_record,
    held,
    rechecked,
    sealed,
    unsealed,
    watch_refused,
)
from clawback.errors import InvalidInput
from clawback.model import CredentialRef, Enforcement, Phase

__all__ = ["ACTION", "CLOSED"]

CLOSED: dict[str, Any] = {
    "Version": "2012-10-17",
    "Statement": [
        {"Sid": "ClawbackClosed", "Effect": "Deny", "Principal": {"AWS": "*"}, "Action": "sts:AssumeRole"},
    ],
}


def _role(ref: CredentialRef) -> str:
    role = ref.identifiers.get("role", "")
    if not role:
        raise InvalidInput(f"{ref.name} is a session of no role", hint="only a role has a trust policy")
    return role


def _plan(ctx: Context, params: CredentialParams) -> Plan:
    role = _role(held(ctx, params, "aws-session"))
    present = ctx.world.cloud.trust(role)
    trusted = [str(statement.get("Principal")) for statement in _statements(present)]
    return Plan(
        changes=(*(f"- {role}: trusts {principal}" for principal in trusted), f"+ {role}: trusts nobody"),
        checks=("closed already",) if present == CLOSED else (),
    )


def _capture(ctx: Context, params: CredentialParams) -> Record:
    ref = held(ctx, params, "aws-session")
    return {"ref": as_record(ref), "role": _role(ref), "trust": sealed(ctx.world.cloud.trust(_role(ref)))}


def _apply(ctx: Context, params: CredentialParams, captured: Record) -> Record:
    del params
    ctx.world.cloud.trust_set(captured["role"], CLOSED)
    return {"role": captured["role"]}


def _verify(ctx: Context, params: CredentialParams, captured: Record, outcome: Record) -> Verification:
    cloud, role = ctx.world.cloud, outcome["role"]
    missing: list[str] = []
    closed = cloud.trust(role) == CLOSED
    proof = [f"{role} trusts {'nobody' if closed else 'SOMEBODY'}"]
    verified = closed
    key = access_key_of(ctx, params.agent, from_record(captured["ref"]).identifiers.get("user", ""))
    # A dead key is refused everything: only with a live one does the refusal speak of the trust.
    if key is not None and cloud.works(key)[0]:
        refused, answer = watch_refused(lambda: cloud.assume(key, role, "clawback-probe"), cloud.settle)
        verified = verified and refused
        proof.append(f"AssumeRole with the agent's live key: {'refused' if refused else 'ACCEPTED'} ({answer})")
    else:
        missing.append("the agent has no live key to try AssumeRole with")
    return Verification(
        verified=verified,
        enforcement=enforcement(verified=verified, missing=tuple(missing)),
        proof="; ".join([*proof, *missing]),
        details={"missing": missing},
    )


def _recheck(ctx: Context, params: CredentialParams, _captured: Record, outcome: Record) -> Verification | None:
    del params
    opened = (x for x in ctx.incident.receipts if x.action == "aws.restore-trust" and x.captured_ns)
    if any(receipt.captured.get("role") == outcome["role"] for receipt in opened):
        return None
    closed = ctx.world.cloud.trust(outcome["role"]) == CLOSED
    return rechecked(holds=closed, proof=f"{outcome['role']} trusts {'nobody' if closed else 'SOMEBODY'}")


def _revert(ctx: Context, params: CredentialParams, captured: Record) -> None:
    del params
    ctx.world.cloud.trust_set(captured["role"], unsealed(captured["trust"]))


def _verify_reverted(ctx: Context, params: CredentialParams, captured: Record) -> Verification:
    del params
    same = ctx.world.cloud.trust(captured["role"]) == unsealed(captured["trust"])
    return Verification(
        verified=same,
        enforcement=Enforcement.FULL if same else Enforcement.NONE,
        proof=f"{captured['role']}'s trust policy {'equals' if same else 'DIFFERS FROM'} the captured one",
    )


def _statements(document: dict[str, Any]) -> list[dict[str, Any]]:
    listed = document.get("Statement", [])
    return listed if isinstance(listed, list) else [listed]


ACTION: Action[CredentialParams] = Action(
    id="aws.close-trust",
    summary="Let nobody become the agent's role.",
    phase=Phase.CONTAIN,
    reversibility=Reversibility.REVERSIBLE,
    needs=frozenset({"iam:GetRole", "iam:UpdateAssumeRolePolicy"}),
    scope="the trust policy of one role, whoever uses it",
    openc2="deny",
    d3fend="D3-UAP",
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
