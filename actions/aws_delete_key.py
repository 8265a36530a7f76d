"""Delete an AWS access key that this incident replaced, for good.

It refuses unless the incident holds a verified `aws.rotate-key` of the same credential, so nothing is deleted that was
not first seen refused, and records when and where the key was last used, which IAM forgets with it.
"""

from __future__ import annotations

from clawback.action import Action, Context, Plan, Record, Reversibility, Verification
from clawback.actions._credentials import (
    CredentialParams,
    credential_key,
    enforcement,
    key_id,
    verified_receipt,
    watch_refused,
)
from clawback.errors import Refused
from clawback.model import Phase

__all__ = ["ACTION"]


def _replaced(ctx: Context, params: CredentialParams) -> tuple[str, str]:
    """(user, access key id) of the key that this incident replaced. `Refused` where none is known to be dead."""
    receipt = verified_receipt(ctx, "aws.rotate-key", params)
    if receipt is None:
        raise Refused(
            f"no key of {params.agent}/{params.name} is deleted: this incident holds no verified aws.rotate-key of it",
            hint="run aws.rotate-key first",
        )
    return str(receipt.outcome["user"]), str(receipt.outcome["replaced"])


def _plan(ctx: Context, params: CredentialParams) -> Plan:
    user, old = _replaced(ctx, params)
    status = ctx.world.cloud.access_keys(user).get(old, "absent")
    return Plan(changes=(f"- {user}: {old} {status}",), checks=(f"last used: {_last_used(ctx, old)}",))


def _capture(ctx: Context, params: CredentialParams) -> Record:
    user, old = _replaced(ctx, params)
    return {
        "user": user,
        "access_key_id": old,
        "status": ctx.world.cloud.access_keys(user).get(old, "absent"),
        "last_used": _last_used(ctx, old),
    }


def _apply(ctx: Context, params: CredentialParams, captured: Record) -> Record:
    user, old = captured["user"], captured["access_key_id"]
    if ctx.world.cloud.access_keys(user).get(old) == "Active":
        raise Refused(
            f"{old} is Active again: somebody set it so since it was replaced", hint="find out who, then resume"
        )
    ctx.world.cloud.access_key_delete(user, old)
    return {"user": user, "access_key_id": old, "agent": params.agent}


def _verify(ctx: Context, params: CredentialParams, captured: Record, outcome: Record) -> Verification:
    del outcome
    cloud, missing = ctx.world.cloud, []
    user, old = captured["user"], captured["access_key_id"]
    value = ctx.world.secrets.old(params.agent, params.name)
    if value is None or key_id(value) != old:
        refused, answer = True, "not used: its value was discarded"
        missing.append("the key was not used")
    else:
        # Deleted keys are reported to work for some seconds more; the refusal must outlast them.
        refused, answer = watch_refused(lambda: cloud.works(value), cloud.settle)
    absent = old not in cloud.access_keys(user)
    verified = absent and refused
    return Verification(
        verified=verified,
        enforcement=enforcement(verified=verified, missing=tuple(missing)),
        proof=f"IAM {'no longer lists' if absent else 'STILL LISTS'} {old}; used: "
        f"{'refused' if refused else 'ACCEPTED'} ({answer}); last used before: {captured['last_used']}",
        details={"missing": missing},
    )


def _last_used(ctx: Context, access_key_id: str) -> str:
    used = ctx.world.cloud.access_key_last_used(access_key_id)
    return f"{used['date']}, {used['service']} in {used['region']}" if used else "never, as far as IAM recorded"


ACTION: Action[CredentialParams] = Action(
    id="aws.delete-key",
    summary="Delete the access key that this incident replaced.",
    phase=Phase.ERADICATE,
    reversibility=Reversibility.IRREVERSIBLE,
    consent=True,
    needs=frozenset({"iam:DeleteAccessKey", "iam:GetAccessKeyLastUsed", "iam:ListAccessKeys", "sts:GetCallerIdentity"}),
    scope="one Inactive access key of one IAM user",
    openc2="delete",
    d3fend="D3-CR",
    params=CredentialParams,
    key=credential_key,
    plan=_plan,
    capture=_capture,
    apply=_apply,
    verify=_verify,
)
