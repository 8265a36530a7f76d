"""Refuse every AWS session that an agent's role, and its user, were issued until now. New sessions work.

Setting a key Inactive ends none of the sessions made with it: AssumeRole sessions run on for hours, and GetSessionToken
sessions outlive their key. So an inline policy denies everything under `aws:TokenIssueTime` before a moment, on the
user and on the role. The user comes first and the role's moment is taken after it, so that a refused user's session
cannot slip in a fresh role session between the two. The moment is by the issuer's clock, from its Date header (whole
seconds, rounded down), plus one second, plus what IAM needs to settle: sessions issued in that margin are refused too.

Proof: the agent's own old session is used for something that it was seen to be allowed before. For the user, a session
is made with the agent's present key just before, and used just after. Undone by removing the two policies.
"""

from __future__ import annotations

import math
import re
from datetime import datetime, timedelta
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
    key_id,
    rechecked,
    watch_refused,
)
from clawback.errors import Refused
from clawback.model import CredentialRef, Enforcement, Phase

__all__ = ["ACTION"]

_KINDS = ("aws-session", "aws-access-key")
# A user's own session lives for 36 hours at most (GetSessionToken), a role's for 12.
_LONGEST_SESSION = timedelta(hours=36)


def _policy_name(ctx: Context, params: CredentialParams) -> str:
    """One for each incident and credential, so that reverting removes just what was put; IAM allows 128 characters."""
    return re.sub(r"[^\w+=,.@-]", "-", f"clawback-{ctx.incident.id}-{params.name}", flags=re.ASCII)[:128]


def _before(ctx: Context) -> str:
    moment = ctx.world.cloud.server_time() + timedelta(seconds=1 + math.ceil(ctx.world.cloud.settle))
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def _who(ref: CredentialRef) -> tuple[str, str]:
    return ref.identifiers.get("user", ""), ref.identifiers.get("role", "")


def _plan(ctx: Context, params: CredentialParams) -> Plan:
    user, role = _who(held(ctx, params, *_KINDS))
    name, moment = _policy_name(ctx, params), _before(ctx)
    targets = [f"user/{user}"] * bool(user) + [role] * bool(role)
    return Plan(
        changes=tuple(
            f"+ {target}: inline policy {name}: deny * where aws:TokenIssueTime < {moment}" for target in targets
        ),
        checks=tuple(
            f"{target}: {name} is {'there already' if ctx.world.cloud.inline_policy(target, name) else 'absent'}"
            for target in targets
        ),
    )


def _capture(ctx: Context, params: CredentialParams) -> Record:
    ref = held(ctx, params, *_KINDS)
    captured: dict[str, Any] = {"ref": as_record(ref), "policy": _policy_name(ctx, params), "worked_before": None}
    if ref.kind == "aws-session":
        session = ctx.world.secrets.current(params.agent, params.name)
        accepted, answer = ctx.world.cloud.permitted(session)
        captured |= {"access_key_id": key_id(session), "worked_before": accepted, "answer_before": answer}
    return captured


def _apply(ctx: Context, params: CredentialParams, captured: Record) -> Record:
    cloud, name = ctx.world.cloud, captured["policy"]
    user, role = _who(from_record(captured["ref"]))
    outcome: dict[str, Any] = {"policy": name}
    if user:
        # A policy that is there already is an earlier run's, and its moment is the right one: moving it on would refuse
        # what was issued since.
        present = cloud.inline_policy(f"user/{user}", name)
        if present is None:
            canary = _canary(ctx, params.agent, user)
            outcome["user_before"] = _before(ctx)
            cloud.user_refuse(user, before=outcome["user_before"], name=name)
            if canary:
                refused, answer = watch_refused(lambda: cloud.permitted(canary), cloud.settle)
                outcome["user_session"] = {"refused": refused, "answer": answer}
        else:
            outcome["user_before"] = _moment(present)
    if role:
        present = cloud.inline_policy(role, name)
        outcome["role_before"] = _before(ctx) if present is None else _moment(present)
        if present is None:
            cloud.sessions_refuse(role, before=outcome["role_before"], name=name)
    return outcome


def _canary(ctx: Context, agent: str, user: str) -> str:
    """A session of the user's own that works now; empty where none is to be had. Never stored, over in an hour."""
    key = access_key_of(ctx, agent, user)
    if key is None:
        return ""
    try:
        session = ctx.world.cloud.user_session_create(key)
    except Refused:
        return ""
    return session if ctx.world.cloud.permitted(session)[0] else ""


def _verify(ctx: Context, params: CredentialParams, captured: Record, outcome: Record) -> Verification:
    cloud, name, missing, proof = ctx.world.cloud, captured["policy"], [], []
    user, role = _who(from_record(captured["ref"]))
    verified = bool(user or role)
    for target, moment in ((f"user/{user}" * bool(user), "user_before"), (role, "role_before")):
        if not target:
            continue
        there = _moment(cloud.inline_policy(target, name) or {}) == outcome[moment]
        verified = verified and there
        proof.append(f"{target}: deny before {outcome[moment]} is {'in place' if there else 'NOT IN PLACE'}")

    if user and (canary := outcome.get("user_session")):
        verified = verified and canary["refused"]
        word = "refused" if canary["refused"] else "ACCEPTED"
        proof.append(f"a session of {user} from just before, used just after: {word} ({canary['answer']})")
    elif user:
        missing.append(f"no session of {user}'s own was at hand to be used")

    old = _old_session(ctx, params, captured)
    if old is not None:
        refused, answer = watch_refused(lambda: cloud.permitted(old), cloud.settle)
        verified = verified and refused
        proof.append(f"the agent's old session used: {'refused' if refused else 'ACCEPTED'} ({answer})")
        if captured["worked_before"] is not True and "explicit deny" not in answer:
            missing.append("that session was not seen to work before")
    elif role:
        missing.append("the agent's old session was not used")
    return Verification(
        verified=verified,
        enforcement=enforcement(verified=verified, missing=tuple(missing)),
        proof="; ".join([*proof, *missing]),
        details={**outcome, "missing": missing},
    )


def _old_session(ctx: Context, params: CredentialParams, captured: Record) -> str | None:
    """The session that the agent held at the capture, current or replaced since."""
    if not captured.get("access_key_id"):
        return None
    store = ctx.world.secrets
    for value in (store.old(params.agent, params.name), store.current(params.agent, params.name)):
        if value is not None and key_id(value) == captured["access_key_id"]:
            return value
    return None


def _moment(document: dict[str, Any]) -> str:
    """The moment in a document of ours; empty in any other."""
    try:
        statement = document["Statement"]
        first = statement[0] if isinstance(statement, list) else statement
        if first["Effect"] != "Deny" or first["Action"] != "*" or first["Resource"] != "*":
            return ""
        return str(first["Condition"]["DateLessThan"]["aws:TokenIssueTime"])
    except (KeyError, IndexError, TypeError):
        return ""


def _recheck(ctx: Context, params: CredentialParams, captured: Record, outcome: Record) -> Verification | None:
    cloud, name = ctx.world.cloud, captured["policy"]
    user, role = _who(from_record(captured["ref"]))
    moments = {f"user/{user}": outcome["user_before"]} if user else {}
    moments |= {role: outcome["role_before"]} if role else {}
    now = cloud.server_time()
    if all(now - datetime.fromisoformat(moment) > _LONGEST_SESSION for moment in moments.values()):
        return None  # none of them lives: whoever tidies up takes the policies away
    gone = [target for target, moment in moments.items() if _moment(cloud.inline_policy(target, name) or {}) != moment]
    old = _old_session(ctx, params, captured)
    accepted, answer = cloud.permitted(old) if old is not None else (False, "not at hand")
    return rechecked(
        holds=not gone and not accepted,
        proof=f"deny policies {'NOT IN PLACE at ' + ', '.join(gone) if gone else 'in place'}; the agent's old session "
        f"used: {'ACCEPTED' if accepted else 'refused'} ({answer})",
    )


def _revert(ctx: Context, params: CredentialParams, captured: Record) -> None:
    del params
    user, role = _who(from_record(captured["ref"]))
    if role:
        ctx.world.cloud.sessions_allow(role, name=captured["policy"])
    if user:
        ctx.world.cloud.user_allow(user, name=captured["policy"])


def _verify_reverted(ctx: Context, params: CredentialParams, captured: Record) -> Verification:
    del params
    user, role = _who(from_record(captured["ref"]))
    targets = [f"user/{user}"] * bool(user) + [role] * bool(role)
    left = [target for target in targets if ctx.world.cloud.inline_policy(target, captured["policy"]) is not None]
    return Verification(
        verified=not left,
        enforcement=Enforcement.NONE if left else Enforcement.FULL,
        proof=f"{captured['policy']} is still on {', '.join(left)}" if left else f"{captured['policy']} is gone",
    )


ACTION: Action[CredentialParams] = Action(
    id="aws.refuse-sessions",
    summary="Refuse every session that the agent's role and user were issued until now.",
    phase=Phase.ERADICATE,
    reversibility=Reversibility.REVERSIBLE,
    needs=frozenset(
        {
            "iam:DeleteRolePolicy",
            "iam:DeleteUserPolicy",
            "iam:GetRolePolicy",
            "iam:GetUserPolicy",
            "iam:PutRolePolicy",
            "iam:PutUserPolicy",
            "sts:GetCallerIdentity",
        }
    ),
    scope="sessions of one IAM user and one role, whoever holds them",
    openc2="deny",
    d3fend="D3-ANCI",
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
