"""Set Inactive what signs in as the agent's AWS users and nobody issued it: keys that the agent, or a thief, made.

Foreign is every credential of these users that no agent's inventory and no step of this incident knows; with `since`,
only what was made then or later. Access keys, service-specific credentials, SSH keys and signing certificates are set
Inactive, which is undone by setting Active what was. A password or a multi-factor device can only be deleted: it is
named, left as it is, and makes the step `partial`; `aws.deny-principal` refuses what is done with it.

Proof: IAM lists none of them Active and nothing foreign has appeared since; a key whose value the agent's store holds
is used besides. A value that nobody knows cannot be used: then the listing is all there is, and it is said. What
appears after the capture fails the proof; a run with a higher `revision` takes it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from datetime import datetime
from typing import Any

from pydantic import Field, field_validator

from clawback.action import Action, Context, Params, Plan, Record, Reversibility, Verification
from clawback.actions._aws import value_of_key
from clawback.actions._credentials import enforcement, key_id, rechecked, watch_refused
from clawback.errors import NotEnforced, NotFound, Unreachable
from clawback.model import Enforcement, Phase
from clawback.world.cloud import UserCredential

__all__ = ["ACTION", "ForeignParams"]


class ForeignParams(Params):
    """Whose users, and from when.

    users      IAM users besides those that the agent's credentials name, such as one that the agent made
    since      ISO 8601 with a zone; empty: whenever it was made
    foreign    access key ids that are foreign although an inventory knows them
    revision   higher for another run in the same incident
    """

    agent: str = Field(min_length=1, max_length=128)
    users: tuple[str, ...] = Field((), max_length=50)
    since: str = Field("", max_length=40)
    foreign: tuple[str, ...] = Field((), max_length=50)
    revision: int = Field(0, ge=0)

    @field_validator("since")
    @classmethod
    def _moment(cls, value: str) -> str:
        if value and datetime.fromisoformat(value).tzinfo is None:
            raise ValueError("no time zone; end it with Z or an offset")
        return value


def _users(ctx: Context, params: ForeignParams) -> list[str]:
    named = {ref.identifiers.get("user", "") for ref in ctx.world.secrets.refs(params.agent)}
    return sorted((named | set(params.users)) - {""})


def _known(ctx: Context, params: ForeignParams) -> tuple[set[str], str]:
    """Access key ids that inventories and this incident's own steps know; why they may not be all."""
    store, lacking = ctx.world.secrets, ""
    known: set[str] = set()
    for ref in store.refs(params.agent):
        values = (store.current(params.agent, ref.name), store.old(params.agent, ref.name))
        known |= {ref.identifiers.get("access_key_id", ""), *(key_id(value) for value in values if value)}
        staged = store.staged_ref(params.agent, ref.name)
        known |= {staged.identifiers.get("access_key_id", "")} if staged else set()
    try:
        for info in ctx.world.core.agents():
            refs = (*info.credentials, *store.refs(info.agent))
            known |= {ref.identifiers.get("access_key_id", "") for ref in refs}
    except Unreachable:
        lacking = "the core does not answer: what other agents hold is unknown"
    for receipt in ctx.incident.receipts:
        known |= {str(receipt.outcome.get(key, "")) for key in ("access_key_id", "replaced")}
    return known - set(params.foreign) - {""}, lacking


def _foreign(ctx: Context, params: ForeignParams) -> Iterator[UserCredential]:
    known, _ = _known(ctx, params)
    since = datetime.fromisoformat(params.since) if params.since else None
    for user in _users(ctx, params):
        for credential in ctx.world.cloud.user_credentials(user):
            if credential.id in known:
                continue
            if credential.id in params.foreign or since is None or datetime.fromisoformat(credential.created) >= since:
                yield credential


def _named(item: UserCredential | Record) -> str:
    facts: Record = asdict(item) if isinstance(item, UserCredential) else item
    return f"{facts['user']}: {facts['kind']} {facts['id']} of {facts['created']}"


def _plan(ctx: Context, params: ForeignParams) -> Plan:
    found = list(_foreign(ctx, params))
    lacking = _known(ctx, params)[1]
    changes = []
    for item in found:
        if item.switchable and item.active:
            changes += [f"- {_named(item)}: Active", f"+ {_named(item)}: Inactive"]
    return Plan(
        changes=tuple(changes),
        checks=(
            *(f"looked at {user}" for user in _users(ctx, params)),
            *(f"{_named(item)} is Inactive already" for item in found if item.switchable and not item.active),
            *(f"{_named(item)} can only be deleted: left as it is" for item in found if not item.switchable),
            *((lacking,) if lacking else ()),
        ),
    )


def _capture(ctx: Context, params: ForeignParams) -> Record:
    rows: list[dict[str, Any]] = []
    for item in _foreign(ctx, params):
        row: dict[str, Any] = asdict(item)
        value = value_of_key(ctx, params.agent, item.id) if item.kind == "access-key" else None
        if value is not None:
            row["worked_before"], row["answer_before"] = ctx.world.cloud.works(value)
        rows.append(row)
    return {"found": rows, "users": _users(ctx, params), "lacking": _known(ctx, params)[1]}


def _apply(ctx: Context, params: ForeignParams, captured: Record) -> Record:
    del params
    disabled = []
    for item in captured["found"]:
        if item["switchable"]:
            ctx.world.cloud.user_credential_switch(item["user"], item["kind"], item["id"], on=False)
            disabled.append(item["id"])
    return {"disabled": disabled}


def _verify(ctx: Context, params: ForeignParams, captured: Record, outcome: Record) -> Verification:
    cloud = ctx.world.cloud
    missing = [captured["lacking"]] if captured["lacking"] else []
    now = list(_foreign(ctx, params))
    active = [item for item in now if item.active and item.switchable]
    verified = not active
    proof = [f"IAM lists {len(outcome['disabled'])} foreign credentials of {', '.join(captured['users'])} as Inactive"]
    if active:
        proof = [f"STILL OR AGAIN ACTIVE: {', '.join(_named(item) for item in active)}"]
    for item in captured["found"]:
        if not item["switchable"]:
            continue
        value = value_of_key(ctx, params.agent, item["id"]) if item["kind"] == "access-key" else None
        if value is None:
            missing.append(f"{item['kind']} {item['id']} was not used: nobody here knows its value")
            continue
        refused, answer = watch_refused(lambda value=value: cloud.works(value), cloud.settle)  # type: ignore[misc]  # mypy infers no type for a lambda's default
        verified = verified and refused
        proof.append(f"{item['id']} used: {'refused' if refused else 'ACCEPTED'} ({answer})")
        if item.get("worked_before") is not True:
            missing.append(f"{item['id']} was not seen to work before")
    missing += [f"{_named(item)} can only be deleted, and works" for item in now if not item.switchable]
    return Verification(
        verified=verified,
        enforcement=enforcement(verified=verified, missing=tuple(missing)),
        proof="; ".join([*proof, *missing]),
        details={"disabled": outcome["disabled"], "missing": missing},
    )


def _recheck(ctx: Context, params: ForeignParams, captured: Record, outcome: Record) -> Verification:
    """What was set Inactive alone: a credential that came since may be its owner's."""
    del params
    users = {str(item["user"]) for item in captured["found"]}
    listed = [item for user in sorted(users) for item in ctx.world.cloud.user_credentials(user)]
    active = [_named(item) for item in listed if item.active and item.id in outcome["disabled"]]
    return rechecked(
        holds=not active,
        proof=f"AGAIN ACTIVE: {', '.join(active)}" if active else "what was set Inactive is not Active",
    )


def _revert(ctx: Context, params: ForeignParams, captured: Record) -> None:
    del params
    gone = []
    for item in captured["found"]:
        if item["switchable"] and item["active"]:
            try:
                ctx.world.cloud.user_credential_switch(item["user"], item["kind"], item["id"], on=True)
            except NotFound:
                gone.append(_named(item))
    if gone:
        raise NotEnforced(f"deleted since, cannot be set Active: {', '.join(gone)}", hint="the rest was set Active")


def _verify_reverted(ctx: Context, params: ForeignParams, captured: Record) -> Verification:
    del params
    present = {
        (item.user, item.id): item.active
        for user in captured["users"]
        for item in ctx.world.cloud.user_credentials(user)
    }
    wrong = [
        _named(item)
        for item in captured["found"]
        if item["switchable"] and present.get((item["user"], item["id"])) is not item["active"]
    ]
    return Verification(
        verified=not wrong,
        enforcement=Enforcement.NONE if wrong else Enforcement.FULL,
        proof=f"not as it was: {', '.join(wrong)}"
        if wrong
        else f"{len(captured['found'])} credentials are as they were",
    )


ACTION: Action[ForeignParams] = Action(
    id="aws.disable-foreign-credentials",
    summary="Set Inactive what signs in as the agent's AWS users and nobody issued it.",
    phase=Phase.ERADICATE,
    reversibility=Reversibility.REVERSIBLE,
    needs=frozenset(
        {
            "iam:GetLoginProfile",
            "iam:ListAccessKeys",
            "iam:ListMFADevices",
            "iam:ListSSHPublicKeys",
            "iam:ListServiceSpecificCredentials",
            "iam:ListSigningCertificates",
            "iam:UpdateAccessKey",
            "iam:UpdateSSHPublicKey",
            "iam:UpdateServiceSpecificCredential",
            "iam:UpdateSigningCertificate",
            "sts:GetCallerIdentity",
        }
    ),
    scope="credentials of the agent's IAM users that no inventory knows",
    openc2="deny",
    d3fend="D3-CR",
    params=ForeignParams,
    key=lambda params: f"{params.agent}/{','.join(params.users)}/{params.since}/{params.revision}",
    plan=_plan,
    capture=_capture,
    apply=_apply,
    verify=_verify,
    recheck=_recheck,
    revert=_revert,
    verify_reverted=_verify_reverted,
)
