"""Deny everything to the agent's AWS user and role, by an inline policy, until it is removed. The quickest containment.

An explicit deny outweighs every allow, resource policies' too, and IAM applies it to each request: keys, sessions that
exist and sessions still to come are all refused at once. Whoever else uses that user or role is refused as well; so it
is for containing, and comes off when keys and sessions have been replaced. The user is denied first: it could still
become the role, and the role alone could not become it. Inline policies have a size limit (2,048 characters for a
user's, 10,240 for a role's, all together); where this one finds no room, the step fails and says so.

Proof: what the agent holds of each principal is used for something harmless, and AWS's refusal names an explicit deny,
for as long as IAM may still know the state before. Undone by removing the policy.
"""

from __future__ import annotations

from typing import Any

from clawback.action import Action, Context, Plan, Record, Reversibility, Verification
from clawback.actions._aws import KINDS, bound_name, capture_uses, principals, ref_of, tried_accepted, tried_refused
from clawback.actions._credentials import CredentialParams, credential_key, enforcement, held, rechecked
from clawback.errors import InvalidInput
from clawback.model import CredentialRef, Enforcement, Phase

__all__ = ["ACTION", "DENY"]

DENY: dict[str, Any] = {
    "Version": "2012-10-17",
    "Statement": [{"Sid": "ClawbackDeny", "Effect": "Deny", "Action": "*", "Resource": "*"}],
}


def _targets(ref: CredentialRef) -> tuple[str, ...]:
    found = principals(ref)
    if not found:
        raise InvalidInput(f"{ref.name} names neither user nor role", hint="store it with --id user=… or --id role=…")
    return found


def _plan(ctx: Context, params: CredentialParams) -> Plan:
    targets, name = _targets(held(ctx, params, *KINDS)), bound_name(ctx, "deny", params)
    there = {target: ctx.world.cloud.inline_policy(target, name) for target in targets}
    return Plan(
        changes=tuple(f"+ {target}: inline policy {name}: deny *" for target in targets if there[target] != DENY),
        checks=(
            *(f"{target}: {name} is there already" for target in targets if there[target] == DENY),
            *(f"{target}: {name} is there, with another document" for target in targets if _other(there[target])),
            *(f"whoever else uses {target} is refused too" for target in targets),
        ),
    )


def _other(document: dict[str, Any] | None) -> bool:
    return document is not None and document != DENY


def _capture(ctx: Context, params: CredentialParams) -> Record:
    _targets(held(ctx, params, *KINDS))
    return {**capture_uses(ctx, params), "policy": bound_name(ctx, "deny", params)}


def _apply(ctx: Context, params: CredentialParams, captured: Record) -> Record:
    del params
    targets = principals(ref_of(captured))
    for target in targets:
        ctx.world.cloud.inline_put(target, captured["policy"], DENY)
    return {"policy": captured["policy"], "principals": list(targets)}


def _verify(ctx: Context, params: CredentialParams, captured: Record, outcome: Record) -> Verification:
    verified, proof, missing = True, [], []
    for target in outcome["principals"]:
        there = ctx.world.cloud.inline_policy(target, captured["policy"]) == DENY
        refused, tried, lacking = tried_refused(ctx, params, captured, target, because="explicit deny")
        verified = verified and there and refused
        proof += [f"{target}: deny * is {'in place' if there else 'NOT IN PLACE'}", tried]
        missing.append(lacking)
    missing = [line for line in missing if line]
    return Verification(
        verified=verified,
        enforcement=enforcement(verified=verified, missing=tuple(missing)),
        proof="; ".join(line for line in (*proof, *missing) if line),
        details={"policy": captured["policy"], "missing": missing},
    )


def _recheck(ctx: Context, params: CredentialParams, captured: Record, outcome: Record) -> Verification:
    del params
    name = captured["policy"]
    gone = [target for target in outcome["principals"] if ctx.world.cloud.inline_policy(target, name) != DENY]
    where = f"NOT IN PLACE at {', '.join(gone)}" if gone else "in place"
    return rechecked(holds=not gone, proof=f"{name}: deny * is {where}")


def _revert(ctx: Context, params: CredentialParams, captured: Record) -> None:
    del params
    for target in reversed(principals(ref_of(captured))):
        ctx.world.cloud.inline_delete(target, captured["policy"])


def _verify_reverted(ctx: Context, params: CredentialParams, captured: Record) -> Verification:
    targets = principals(ref_of(captured))
    left = [target for target in targets if ctx.world.cloud.inline_policy(target, captured["policy"]) is not None]
    if left:
        return Verification(
            verified=False,
            enforcement=Enforcement.NONE,
            proof=f"{captured['policy']} is still on {', '.join(left)}",
        )
    tried = [tried_accepted(ctx, params, captured, target) for target in targets]
    as_before = all(same for same, _ in tried)
    return Verification(
        verified=True,
        # Refused all the same: something else of this or another response stands, which is not ours to undo here.
        enforcement=Enforcement.FULL if as_before else Enforcement.PARTIAL,
        proof="; ".join([f"{captured['policy']} is gone", *(line for _, line in tried)]),
    )


ACTION: Action[CredentialParams] = Action(
    id="aws.deny-principal",
    summary="Deny everything to the agent's AWS user and role.",
    phase=Phase.CONTAIN,
    reversibility=Reversibility.REVERSIBLE,
    needs=frozenset(
        {
            "iam:DeleteRolePolicy",
            "iam:DeleteUserPolicy",
            "iam:GetRolePolicy",
            "iam:GetUserPolicy",
            "iam:PutRolePolicy",
            "iam:PutUserPolicy",
        }
    ),
    scope="one IAM user and one role, whoever uses them",
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
