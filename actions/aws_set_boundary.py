"""Put a permissions boundary on the agent's AWS user and role that allows nothing, or only what is listed.

A boundary is a managed policy, so one is made for the incident. Beside allowing the list it denies the rest explicitly:
what a boundary merely does not allow, a resource's own policy may still grant to the user. Sessions that exist are
bound at once, as with `aws.deny-principal`; this one leaves room for what must go on (`allow`), and cannot be outdone
by inline policies. The boundary that was there is captured and put back; ours is deleted then.

Proof: IAM names ours as the boundary, its document is what was put, and what the agent holds is refused, by an explicit
deny, something that the list does not allow. Where the list allows that, nothing is left to try, and it is said.
"""

from __future__ import annotations

import re
from typing import Any

from pydantic import Field, field_validator

from clawback.action import Action, Context, Plan, Record, Reversibility, Verification
from clawback.actions._aws import KINDS, bound_name, capture_uses, principals, ref_of, tried_accepted, tried_refused
from clawback.actions._credentials import (
    CredentialParams,
    credential_key,
    enforcement,
    held,
    rechecked,
    sealed,
    unsealed,
)
from clawback.errors import InvalidInput, NotEnforced, Refused
from clawback.model import Enforcement, Phase

__all__ = ["ACTION", "BoundaryParams"]

_PROBE = "s3:ListAllMyBuckets"  # what `permitted` does


class BoundaryParams(CredentialParams):
    """`allow`: IAM actions that stay possible, as far as other policies allow them; none: nothing."""

    allow: tuple[str, ...] = Field((), max_length=50)

    @field_validator("allow")
    @classmethod
    def _actions(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for action in value:
            if not re.fullmatch(r"[a-z0-9-]+:[A-Za-z*?]+", action) or action.endswith(":*"):
                raise ValueError(f"{action[:80]!a} is too wide, or no action: SERVICE:Verb, such as s3:GetObject")
        return tuple(sorted(set(value)))


def _document(allow: tuple[str, ...]) -> dict[str, Any]:
    rest = {"NotAction": list(allow)} if allow else {"Action": "*"}
    statements: list[dict[str, Any]] = [{"Sid": "ClawbackDenyRest", "Effect": "Deny", **rest, "Resource": "*"}]
    if allow:
        statements.append({"Sid": "ClawbackLeave", "Effect": "Allow", "Action": list(allow), "Resource": "*"})
    return {"Version": "2012-10-17", "Statement": statements}


def _targets(ctx: Context, params: BoundaryParams) -> tuple[str, ...]:
    ref = held(ctx, params, *KINDS)
    if not principals(ref):
        raise InvalidInput(f"{ref.name} names neither user nor role", hint="store it with --id user=… or --id role=…")
    return principals(ref)


def _plan(ctx: Context, params: BoundaryParams) -> Plan:
    changes, checks = [], []
    what = f"allow only {', '.join(params.allow)}" if params.allow else "allow nothing"
    for target in _targets(ctx, params):
        present = ctx.world.cloud.boundary(target)
        changes += [f"- {target}: boundary {present or 'none'}", f"+ {target}: boundary {_name(ctx, params)}: {what}"]
        checks.append(f"whoever else uses {target} is bound too")
    return Plan(changes=tuple(changes), checks=tuple(checks))


def _name(ctx: Context, params: BoundaryParams) -> str:
    return bound_name(ctx, "boundary", params, *params.allow)


def _capture(ctx: Context, params: BoundaryParams) -> Record:
    targets = _targets(ctx, params)
    return {
        **capture_uses(ctx, params),
        "policy": _name(ctx, params),
        "arn": ctx.world.cloud.managed_arn(_name(ctx, params)),
        "document": sealed(_document(params.allow)),
        "boundaries": {target: ctx.world.cloud.boundary(target) for target in targets},
    }


def _apply(ctx: Context, params: BoundaryParams, captured: Record) -> Record:
    del params
    cloud, arn, document = ctx.world.cloud, captured["arn"], unsealed(captured["document"])
    cloud.managed_create(captured["policy"], document)
    if cloud.managed_policy(arn) != document:
        raise Refused(
            f"{arn} is there already, and is not what was to be made", hint="find out who made it, delete it, resume"
        )
    targets = principals(ref_of(captured))
    for target in targets:
        cloud.boundary_set(target, arn)
    return {"arn": arn, "principals": list(targets)}


def _verify(ctx: Context, params: BoundaryParams, captured: Record, outcome: Record) -> Verification:
    cloud, arn = ctx.world.cloud, outcome["arn"]
    same = cloud.managed_policy(arn) == unsealed(captured["document"])
    verified = same
    proof, missing = [f"{arn} {'is what was put' if same else 'IS NOT WHAT WAS PUT'}"], []
    for target in outcome["principals"]:
        there = cloud.boundary(target) == arn
        verified = verified and there
        proof.append(f"{target}: boundary is {'that' if there else 'ANOTHER, OR NONE'}")
        if _allows_probe(params.allow):
            missing.append(f"{target}: the list allows {_PROBE}, which is all that is tried")
            continue
        refused, tried, lacking = tried_refused(ctx, params, captured, target, because="explicit deny")
        verified = verified and refused
        proof += [tried] * bool(tried)
        missing += [lacking] * bool(lacking)
    return Verification(
        verified=verified,
        enforcement=enforcement(verified=verified, missing=tuple(missing)),
        proof="; ".join([*proof, *missing]),
        details={"arn": arn, "missing": missing},
    )


def _allows_probe(allow: tuple[str, ...]) -> bool:
    """IAM compares actions without regard to case; `*` and `?` as in file names."""
    patterns = (re.escape(action).replace(r"\*", ".*").replace(r"\?", ".") for action in allow)
    return any(re.fullmatch(pattern, _PROBE, re.IGNORECASE) for pattern in patterns)


def _recheck(ctx: Context, params: BoundaryParams, captured: Record, outcome: Record) -> Verification:
    del params
    cloud, arn = ctx.world.cloud, outcome["arn"]
    same = cloud.managed_policy(arn) == unsealed(captured["document"])
    bare = [target for target in outcome["principals"] if cloud.boundary(target) != arn]
    wrong = [f"{arn} IS NOT WHAT WAS PUT"] * (not same) + [f"{target} HAS ANOTHER, OR NONE" for target in bare]
    return rechecked(holds=not wrong, proof="; ".join(wrong) or f"{arn} is what was put, and binds")


def _revert(ctx: Context, params: BoundaryParams, captured: Record) -> None:
    del params
    cloud = ctx.world.cloud
    strange = []
    for target, before in captured["boundaries"].items():
        present = cloud.boundary(target)
        if present == before:
            continue
        if present != captured["arn"]:
            strange.append(f"{target} has {present or 'none'}")
        elif before:
            cloud.boundary_set(target, before)
        else:
            cloud.boundary_remove(target)
    if strange:
        raise NotEnforced(
            f"somebody set another boundary since: {'; '.join(strange)}", hint="it was left; set the one you want"
        )
    cloud.managed_delete(captured["arn"])


def _verify_reverted(ctx: Context, params: BoundaryParams, captured: Record) -> Verification:
    wrong, proof, as_before = [], [], True
    for target, before in captured["boundaries"].items():
        present = ctx.world.cloud.boundary(target)
        if present != before:
            wrong.append(f"{target} has {present or 'none'}, not {before or 'none'}")
        else:
            same, tried = tried_accepted(ctx, params, captured, target)
            as_before = as_before and same
            proof += [f"{target}: boundary {before or 'none'}, as before", tried]
    if wrong:
        return Verification(verified=False, enforcement=Enforcement.NONE, proof="; ".join(wrong))
    return Verification(
        verified=True,
        enforcement=Enforcement.FULL if as_before else Enforcement.PARTIAL,
        proof="; ".join(proof),
    )


ACTION: Action[BoundaryParams] = Action(
    id="aws.set-boundary",
    summary="Put a permissions boundary on the agent's user and role that allows nothing, or only a list.",
    phase=Phase.CONTAIN,
    reversibility=Reversibility.REVERSIBLE,
    needs=frozenset(
        {
            "iam:CreatePolicy",
            "iam:DeletePolicy",
            "iam:DeletePolicyVersion",
            "iam:DeleteRolePermissionsBoundary",
            "iam:DeleteUserPermissionsBoundary",
            "iam:GetPolicy",
            "iam:GetPolicyVersion",
            "iam:GetRole",
            "iam:GetUser",
            "iam:ListPolicyVersions",
            "iam:PutRolePermissionsBoundary",
            "iam:PutUserPermissionsBoundary",
            "sts:GetCallerIdentity",
        }
    ),
    scope="one IAM user and one role, whoever uses them, and one managed policy of our own",
    openc2="deny",
    d3fend="D3-UAP",
    params=BoundaryParams,
    key=lambda params: "/".join((credential_key(params), *params.allow)),
    plan=_plan,
    capture=_capture,
    apply=_apply,
    verify=_verify,
    recheck=_recheck,
    revert=_revert,
    verify_reverted=_verify_reverted,
)
