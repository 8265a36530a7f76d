"""Replace an agent's AWS access key: a new one is issued and kept for it, the old one is set Inactive, not yet deleted.

Order: the new key is stored durably before the old one is set Inactive, and it becomes current last. IAM keeps at most
two keys for a user: with both taken, the old one is set Inactive all the same and the step fails, unless another,
Inactive one may go: one that this incident traced to the agent, or, where `make_room` says so, any, which is not ours
to judge. A key that appeared since the capture is one that we were cut off while asking for, its value lost, or
somebody's, made during the incident. In the way of a new one, it fails the step at first; a run after a cut or a
failure deletes it and names it.

An Inactive key does not end sessions made with it: that is `aws.refuse-sessions`. Undone by setting the old key
Active again, deleting the new one, also one whose value was lost, and giving the old one back to the agent, for as
long as `aws.delete-key` has not run.
"""

from __future__ import annotations

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
    key_id,
    other_holders,
    rechecked,
    watch_accepted,
    watch_refused,
)
from clawback.errors import NotEnforced, Refused
from clawback.model import CredentialRef, Phase, ReceiptState

__all__ = ["ACTION", "RotateKeyParams"]

_KIND = "aws-access-key"
_KEYS_PER_USER = 2


class RotateKeyParams(CredentialParams):
    """`make_room`: where the user has two keys, the other may be deleted if it is Inactive."""

    make_room: bool = False


def _identity(ref: CredentialRef) -> tuple[str, str]:
    return ref.identifiers["user"], ref.identifiers["access_key_id"]


def _plan(ctx: Context, params: RotateKeyParams) -> Plan:
    ref = held(ctx, params, _KIND)
    user, old = _identity(ref)
    keys = ctx.world.cloud.access_keys(user)
    checks = [f"{user}: {key} is {status}" for key, status in sorted(keys.items())]
    changes = [f"- {params.agent}/{params.name}: {old} {keys.get(old, 'absent')}", f"+ {old} Inactive"]
    if len(keys) >= _KEYS_PER_USER:
        room = _removable(ctx, params, keys, old)
        if room:
            changes.append(f"- {room} Inactive: deleted to make room")
        else:
            checks.append("both key slots are taken: no new key can be issued; the old one would still be set Inactive")
    changes.append(f"+ {params.agent}/{params.name}: a new key of {user}, Active")
    checks += [f"also held by {agent}" for agent in other_holders(ctx, params.agent, ref, "access_key_id")]
    return Plan(changes=tuple(changes), checks=tuple(checks))


def _capture(ctx: Context, params: RotateKeyParams) -> Record:
    ref = held(ctx, params, _KIND)
    accepted, answer = ctx.world.cloud.works(ctx.world.secrets.current(params.agent, params.name))
    return {
        "ref": as_record(ref),
        "keys": ctx.world.cloud.access_keys(_identity(ref)[0]),
        "worked_before": accepted,
        "answer_before": answer,
    }


def _apply(ctx: Context, params: RotateKeyParams, captured: Record) -> Record:
    cloud, store = ctx.world.cloud, ctx.world.secrets
    user, old = _identity(from_record(captured["ref"]))
    present = held(ctx, params, _KIND)
    removed: list[str] = []
    first = _identity(present)[1] == old
    if first or cloud.access_keys(user).get(_identity(present)[1]) != "Active":  # or the new one was killed since
        following = _staged(ctx, params, user) or _issue(ctx, params, captured, removed)
        cloud.access_key_deactivate(user, old)
        store.promote(params.agent, params.name, keep_old=not first)
    else:
        following = present
        cloud.access_key_deactivate(user, old)
    return {"user": user, "access_key_id": _identity(following)[1], "replaced": old, "removed": removed}


def _staged(ctx: Context, params: RotateKeyParams, user: str) -> CredentialRef | None:
    """The key that an earlier, interrupted run staged, if it is still Active."""
    ref = ctx.world.secrets.staged_ref(params.agent, params.name)
    if ref is None or ctx.world.cloud.access_keys(user).get(_identity(ref)[1]) != "Active":
        return None
    return ref


def _issue(ctx: Context, params: RotateKeyParams, captured: Record, removed: list[str]) -> CredentialRef:
    cloud, store = ctx.world.cloud, ctx.world.secrets
    old_ref = from_record(captured["ref"])
    user, old = _identity(old_ref)
    keys = cloud.access_keys(user)
    since = keys.keys() - captured["keys"].keys()
    if len(keys.keys() - since) >= _KEYS_PER_USER:
        room = _removable(ctx, params, {key: at for key, at in keys.items() if key not in since}, old)
        if not room:
            cloud.access_key_deactivate(user, old)  # containing does not wait for housekeeping
            raise Refused(
                f"{user} can have no third access key; {old} was set Inactive, and no new one was issued",
                hint="delete a key that is not needed, or allow make_room, and resume",
            )
        cloud.access_key_delete(user, room)
        removed.append(room)
    if store.begin(params.agent, params.name):
        for lost in sorted(since):
            cloud.access_key_delete(user, lost)
            removed.append(lost)
    elif len(keys) - len(removed) >= _KEYS_PER_USER:
        cloud.access_key_deactivate(user, old)
        raise Refused(
            f"{user} got the access key {', '.join(sorted(since))} since the capture, from somebody else; "
            f"{old} was set Inactive, and no new one was issued",
            hint="find out whose it is and delete it; resuming deletes it too",
        )
    access_key_id, secret = cloud.access_key_create(user)
    value = _like(store.current(params.agent, params.name), access_key_id, secret)
    ref = replace(old_ref, identifiers={**old_ref.identifiers, "access_key_id": access_key_id})
    store.stage(params.agent, ref, value)
    return ref


def _removable(ctx: Context, params: RotateKeyParams, keys: dict[str, str], old: str) -> str:
    """An Inactive key that may go: any where that is allowed, and one that this incident traced to the agent."""
    traced = {
        str(receipt.params.get("id"))
        for receipt in ctx.incident.receipts
        if receipt.action == "credential.refuse" and receipt.state is ReceiptState.VERIFIED
    }
    for key, status in sorted(keys.items()):
        if key != old and status == "Inactive" and (params.make_room or key in traced):
            return key
    return ""


def _like(old: str, access_key_id: str, secret: str) -> str:
    """The old credential's JSON with the new key in it; what else it holds (a region) stays."""
    try:
        raw: dict[str, Any] = dict(json.loads(old))
    except (ValueError, TypeError):
        raw = {}
    return json.dumps(raw | {"access_key_id": access_key_id, "secret_access_key": secret})


def _verify(ctx: Context, params: RotateKeyParams, captured: Record, outcome: Record) -> Verification:
    cloud, store = ctx.world.cloud, ctx.world.secrets
    user, old, new = outcome["user"], outcome["replaced"], outcome["access_key_id"]
    missing: list[str] = []
    keys = cloud.access_keys(user)
    current = store.current(params.agent, params.name)
    works, new_answer = watch_accepted(lambda: cloud.works(current), cloud.settle)

    old_value = store.old(params.agent, params.name)
    if old_value is None or key_id(old_value) != old:
        refused, old_answer = True, "not used: its value was discarded"
        missing.append("the old key was not used")
    else:
        refused, old_answer = watch_refused(lambda: cloud.works(old_value), cloud.settle)
    if captured["worked_before"] is not True:
        missing.append("the old key was not seen to work before")
    missing += [
        f"{user} also has the Active key {key}" for key, at in sorted(keys.items()) if key != new and at == "Active"
    ]

    verified = refused and works and keys.get(old, "absent") != "Active" and key_id(current) == new
    return Verification(
        verified=verified,
        enforcement=enforcement(verified=verified, missing=tuple(missing)),
        proof="; ".join(
            [
                f"old key {old} used: {'refused' if refused else 'ACCEPTED'} ({old_answer})",
                f"IAM lists it as {keys.get(old, 'absent')}",
                f"new key {new} used: {'accepted' if works else 'REFUSED'} ({new_answer})",
                *missing,
            ]
        ),
        details={"access_key_id": new, "replaced": old, "removed": outcome["removed"], "missing": missing},
    )


def _recheck(ctx: Context, params: RotateKeyParams, _captured: Record, outcome: Record) -> Verification:
    """The old key alone: the new one is its holder's to replace."""
    cloud, user, old = ctx.world.cloud, outcome["user"], outcome["replaced"]
    status = cloud.access_keys(user).get(old, "absent")
    value = ctx.world.secrets.old(params.agent, params.name)
    accepted, answer = cloud.works(value) if value and key_id(value) == old else (False, "its value was discarded")
    return rechecked(
        holds=status != "Active" and not accepted,
        proof=f"IAM lists {old} as {status}; used: {'ACCEPTED' if accepted else 'refused'} ({answer})",
    )


def _revert(ctx: Context, params: RotateKeyParams, captured: Record) -> None:
    cloud, store = ctx.world.cloud, ctx.world.secrets
    old_ref = from_record(captured["ref"])
    user, old = _identity(old_ref)
    if old not in cloud.access_keys(user):
        raise NotEnforced(f"{old} was deleted and cannot be set Active again", hint="the agent keeps its new key")
    if captured["keys"].get(old) == "Active":
        cloud.access_key_activate(user, old)
    issued = _identity(held(ctx, params, _KIND))[1]
    if issued == old:
        _delete(ctx, user, _given_to_nobody(ctx, params, captured, user))
    else:
        old_value = store.old(params.agent, params.name)
        if old_value is None or key_id(old_value) != old:
            raise NotEnforced(f"the value of {old} was discarded", hint="the agent keeps its new key")
        _delete(ctx, user, {issued} | _given_to_nobody(ctx, params, captured, user))
        store.put(params.agent, old_ref, old_value)
    store.abandon(params.agent, params.name)
    store.discard(params.agent, params.name)


def _given_to_nobody(ctx: Context, params: RotateKeyParams, captured: Record, user: str) -> set[str]:
    """What was issued before a cut: the key that was staged, or, if we were cut off while asking, what came since."""
    store = ctx.world.secrets
    staged = store.staged_ref(params.agent, params.name)
    keys = {_identity(staged)[1]} if staged is not None else set[str]()
    if store.asked(params.agent, params.name):
        keys |= ctx.world.cloud.access_keys(user).keys() - captured["keys"].keys()
    return keys


def _delete(ctx: Context, user: str, keys: set[str]) -> None:
    """Before the store forgets which keys they were; and not believed, for the same reason."""
    cloud = ctx.world.cloud
    doomed = keys & cloud.access_keys(user).keys()
    for key in sorted(doomed):
        cloud.access_key_delete(user, key)
    if not watch_accepted(lambda: (doomed.isdisjoint(cloud.access_keys(user)), ""), cloud.settle)[0]:
        left = ", ".join(sorted(doomed & cloud.access_keys(user).keys()))
        raise NotEnforced(f"IAM lists {left} after deleting it", hint="resume, or delete it by hand")


def _verify_reverted(ctx: Context, params: RotateKeyParams, captured: Record) -> Verification:
    cloud = ctx.world.cloud
    user, old = _identity(from_record(captured["ref"]))
    keys = cloud.access_keys(user)
    status = keys.get(old, "absent")
    current = ctx.world.secrets.current(params.agent, params.name)
    wanted = captured["worked_before"] is True
    works, answer = watch_accepted(lambda: cloud.works(current), cloud.settle) if wanted else cloud.works(current)
    verified = key_id(current) == old and status == captured["keys"].get(old) and works == wanted
    missing = [
        f"{user} also has the {at} key {key}, made since"
        for key, at in sorted(keys.items())
        if key not in captured["keys"]
    ]
    return Verification(
        verified=verified,
        enforcement=enforcement(verified=verified, missing=tuple(missing)),
        proof="; ".join([f"the agent holds {key_id(current)}, which IAM lists as {status}; used: {answer}", *missing]),
    )


ACTION: Action[RotateKeyParams] = Action(
    id="aws.rotate-key",
    summary="Replace the agent's AWS access key and set the old one Inactive.",
    phase=Phase.ERADICATE,
    reversibility=Reversibility.REVERSIBLE,
    needs=frozenset(
        {
            "iam:CreateAccessKey",
            "iam:DeleteAccessKey",
            "iam:ListAccessKeys",
            "iam:UpdateAccessKey",
            "sts:GetCallerIdentity",
        }
    ),
    scope="the access keys of one IAM user",
    openc2="update",
    d3fend="D3-CRO",
    params=RotateKeyParams,
    key=credential_key,
    plan=_plan,
    capture=_capture,
    apply=_apply,
    verify=_verify,
    recheck=_recheck,
    revert=_revert,
    verify_reverted=_verify_reverted,
)
