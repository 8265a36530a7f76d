"""Hand no instance the agent's role any more: the role leaves its instance profiles, or one instance loses its profile.

Without `instance`, the role is taken out of every instance profile that holds it: all instances with these profiles get
no new sessions. With `instance`, the profile is taken from that instance alone, and the others keep theirs.

Sessions that were handed out already live on until they expire, six hours at most, and `aws.refuse-sessions` on the
same role ends them: until the agent's old session is seen refused, this is `partial` and says so. What an instance's
metadata service still answers can be seen from that instance only, and is not claimed. Undone from the captured record.
"""

from __future__ import annotations

from typing import Any

from pydantic import Field

from clawback.action import Action, Context, Plan, Record, Reversibility, Verification
from clawback.actions._aws import value_of_key
from clawback.actions._credentials import CredentialParams, as_record, enforcement, held, key_id, rechecked
from clawback.errors import InvalidInput, NotEnforced, NotFound, Refused
from clawback.model import Enforcement, Phase

__all__ = ["ACTION", "DetachParams"]


class DetachParams(CredentialParams):
    """`instance`: only this EC2 instance; empty: every instance that is handed the role."""

    instance: str = Field("", max_length=64, pattern=r"^(i-[0-9a-f]+)?$")


def _role(ctx: Context, params: DetachParams) -> str:
    role = held(ctx, params, "aws-session").identifiers.get("role", "")
    if not role:
        raise InvalidInput(f"{params.name} is a session of no role", hint="only a role is handed to instances")
    return role


def _found(ctx: Context, params: DetachParams) -> list[dict[str, Any]]:
    """The profiles in question, each with its `name`, `arn` and the `instances` that have it: id → association."""
    profiles = []
    for name, arn in sorted(ctx.world.cloud.instance_profiles(_role(ctx, params)).items()):
        instances = ctx.world.cloud.profile_associations(arn)
        if not params.instance or params.instance in instances:
            profiles.append({"name": name, "arn": arn, "instances": instances})
    return profiles


def _plan(ctx: Context, params: DetachParams) -> Plan:
    role, profiles = _role(ctx, params), _found(ctx, params)
    if params.instance:
        changes = [f"- {params.instance}: instance profile {profile['name']}" for profile in profiles]
    else:
        changes = [f"- instance profile {profile['name']}: {role}" for profile in profiles]
    touched = sorted({instance for profile in profiles for instance in profile["instances"]})
    return Plan(
        changes=tuple(changes),
        checks=(
            *(
                ()
                if profiles
                else (f"no instance profile holds {role}" + f" for {params.instance}" * bool(params.instance),)
            ),
            *(f"{instance} is handed {role} now" for instance in touched),
            "sessions that were handed out live on: aws.refuse-sessions ends them",
        ),
    )


def _capture(ctx: Context, params: DetachParams) -> Record:
    session = ctx.world.secrets.current(params.agent, params.name)
    accepted, answer = ctx.world.cloud.permitted(session)
    return {
        "ref": as_record(held(ctx, params, "aws-session")),
        "role": _role(ctx, params),
        "profiles": _found(ctx, params),
        "access_key_id": key_id(session),
        "worked_before": accepted,
        "answer_before": answer,
    }


def _apply(ctx: Context, params: DetachParams, captured: Record) -> Record:
    cloud = ctx.world.cloud
    for profile in captured["profiles"]:
        if params.instance:
            # By its present id: an association that was made anew since has another one.
            association = cloud.profile_associations(profile["arn"]).get(params.instance)
            if association:
                cloud.profile_disassociate(association)
        else:
            cloud.profile_role_remove(profile["name"], captured["role"])
    return {"role": captured["role"], "profiles": [profile["name"] for profile in captured["profiles"]]}


def _still(ctx: Context, params: DetachParams, role: str) -> tuple[list[str], str]:
    """By which profiles the role is handed out, and that in words."""
    cloud = ctx.world.cloud
    holding = cloud.instance_profiles(role)
    if params.instance:
        still = sorted(name for name, arn in holding.items() if params.instance in cloud.profile_associations(arn))
        return still, f"{params.instance} {'HAS ' + ', '.join(still) if still else f'is handed {role} no more'}"
    still = sorted(holding)
    return still, f"{role} {'is IN ' + ', '.join(still) if still else 'is in no instance profile'}"


def _verify(ctx: Context, params: DetachParams, captured: Record, outcome: Record) -> Verification:
    cloud, missing = ctx.world.cloud, []
    still, handed = _still(ctx, params, outcome["role"])
    proof = [handed]
    old = value_of_key(ctx, params.agent, captured["access_key_id"])
    if old is None:
        missing.append("the agent's old session was not at hand to be used")
    else:
        accepted, answer = cloud.permitted(old)
        proof.append(f"the agent's old session used: {'accepted' if accepted else 'refused'} ({answer})")
        if accepted:
            missing.append("sessions that were handed out still work: aws.refuse-sessions ends them")
        elif captured["worked_before"] is not True and "explicit deny" not in answer:
            missing.append("that session was not seen to work before")
    return Verification(
        verified=not still,
        enforcement=enforcement(verified=not still, missing=tuple(missing)),
        proof="; ".join([*proof, *missing]),
        details={"profiles": outcome["profiles"], "missing": missing},
    )


def _recheck(ctx: Context, params: DetachParams, _captured: Record, outcome: Record) -> Verification:
    still, handed = _still(ctx, params, outcome["role"])
    return rechecked(holds=not still, proof=handed)


def _revert(ctx: Context, params: DetachParams, captured: Record) -> None:
    cloud = ctx.world.cloud
    for profile in captured["profiles"]:
        try:
            if params.instance:
                cloud.profile_associate(params.instance, profile["arn"])
            else:
                cloud.profile_role_add(profile["name"], captured["role"])
        except (NotFound, Refused) as error:
            raise NotEnforced(f"cannot be put back as it was: {error.message}", hint=error.hint) from None


def _verify_reverted(ctx: Context, params: DetachParams, captured: Record) -> Verification:
    cloud = ctx.world.cloud
    if params.instance:
        lacking = [
            profile["name"]
            for profile in captured["profiles"]
            if params.instance not in cloud.profile_associations(profile["arn"])
        ]
    else:
        present = cloud.instance_profiles(captured["role"])
        lacking = [profile["name"] for profile in captured["profiles"] if profile["name"] not in present]
    names = ", ".join(profile["name"] for profile in captured["profiles"]) or "nothing"
    return Verification(
        verified=not lacking,
        enforcement=Enforcement.NONE if lacking else Enforcement.FULL,
        proof=f"not put back: {', '.join(lacking)}" if lacking else f"put back as it was: {names}",
    )


ACTION: Action[DetachParams] = Action(
    id="aws.detach-instance-profile",
    summary="Hand no instance the agent's role any more.",
    phase=Phase.CONTAIN,
    reversibility=Reversibility.REVERSIBLE,
    needs=frozenset(
        {
            "ec2:AssociateIamInstanceProfile",
            "ec2:DescribeIamInstanceProfileAssociations",
            "ec2:DisassociateIamInstanceProfile",
            "iam:AddRoleToInstanceProfile",
            "iam:ListInstanceProfilesForRole",
            "iam:PassRole",
            "iam:RemoveRoleFromInstanceProfile",
        }
    ),
    scope="the instance profiles of one role, or one instance's",
    openc2="deny",
    d3fend="D3-UAP",
    params=DetachParams,
    key=lambda params: f"{params.agent}/{params.name}/{params.instance or '*'}",
    plan=_plan,
    capture=_capture,
    apply=_apply,
    verify=_verify,
    recheck=_recheck,
    revert=_revert,
    verify_reverted=_verify_reverted,
)
