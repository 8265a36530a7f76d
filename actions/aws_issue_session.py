"""Issue the agent a new AWS session with its present key, once its older sessions are refused.

A session issued within the margin of `aws.refuse-sessions` is itself refused; so it is tried before it is kept, and
asked for again until one is accepted. A session whose value a crash lost was given to nobody and ends by itself within
the hour. Nothing takes a session back one by one: `aws.refuse-sessions` ends them all.
"""

from __future__ import annotations

import time

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
    watch_accepted,
)
from clawback.errors import NotEnforced, Refused
from clawback.model import CredentialRef, Phase

__all__ = ["ACTION"]

_KIND = "aws-session"
# The refusal's margin is a second plus what IAM needs to settle, and fifteen more where `credential.refuse` made it.
_PATIENCE_SECONDS = 20.0
_INTERVAL_SECONDS = 0.2


def _key(ctx: Context, agent: str, ref: CredentialRef) -> str:
    user = ref.identifiers.get("user", "")
    key = access_key_of(ctx, agent, user)
    if key is None:
        raise Refused(
            f"{agent} holds no access key of {user or 'any user'} to get a session with",
            hint="issue the key first, or let the session's owner issue it",
        )
    return key


def _plan(ctx: Context, params: CredentialParams) -> Plan:
    ref = held(ctx, params, _KIND)
    accepted, answer = ctx.world.cloud.works(_key(ctx, params.agent, ref))
    whose = ref.identifiers.get("role") or f"user {ref.identifiers.get('user', '')}"
    return Plan(
        changes=(
            f"- {params.agent}/{params.name}: its session of {whose}",
            f"+ {params.agent}/{params.name}: a new one",
        ),
        checks=(f"the agent's key: {'accepted' if accepted else 'refused'} ({answer})",),
    )


def _capture(ctx: Context, params: CredentialParams) -> Record:
    ref = held(ctx, params, _KIND)
    return {"ref": as_record(ref), "access_key_id": key_id(ctx.world.secrets.current(params.agent, params.name))}


def _apply(ctx: Context, params: CredentialParams, captured: Record) -> Record:
    store = ctx.world.secrets
    present = store.current(params.agent, params.name)
    first = key_id(present) == captured["access_key_id"]
    if first or not ctx.world.cloud.works(present)[0]:  # or the new one is none
        staged = store.staged(params.agent, params.name)
        if staged is None or not ctx.world.cloud.works(staged)[0]:
            ref = from_record(captured["ref"])
            store.stage(params.agent, ref, _issue(ctx, params, ref))
        store.promote(params.agent, params.name, keep_old=not first)
    return {"access_key_id": key_id(store.current(params.agent, params.name))}


def _issue(ctx: Context, params: CredentialParams, ref: CredentialRef) -> str:
    cloud, key = ctx.world.cloud, _key(ctx, params.agent, ref)
    role = ref.identifiers.get("role", "")
    deadline = time.monotonic() + 2 * cloud.settle + _PATIENCE_SECONDS
    while True:
        if role:
            session = cloud.session_create(key, role, ref.identifiers.get("session") or f"agent-{params.agent}"[:64])
        else:
            session = cloud.user_session_create(key)
        accepted, answer = cloud.permitted(session)
        # What a role was never allowed is refused as well, but not by an explicit deny.
        if accepted or "explicit deny" not in answer:
            return session
        if time.monotonic() > deadline:
            raise NotEnforced(
                f"new sessions for {params.agent}/{params.name} are refused too: {answer}",
                hint="look for another deny policy on the role or the user",
            )
        time.sleep(_INTERVAL_SECONDS)


def _verify(ctx: Context, params: CredentialParams, captured: Record, outcome: Record) -> Verification:
    cloud, store, missing = ctx.world.cloud, ctx.world.secrets, []
    session = store.current(params.agent, params.name)
    works, answer = watch_accepted(lambda: cloud.permitted(session), cloud.settle)
    proof = f"new session {key_id(session)} used: {'accepted' if works else 'REFUSED'} ({answer})"
    if not works and "explicit deny" not in answer:
        # Not allowed the one thing that we try; that it is a live session at all can still be seen.
        works, answer = cloud.works(session)
        missing.append("it is not allowed the harmless call that is tried")
        proof += f"; it is {'live' if works else 'DEAD'} ({answer})"
    verified = works and key_id(session) == outcome["access_key_id"] != captured["access_key_id"]
    return Verification(
        verified=verified,
        enforcement=enforcement(verified=verified, missing=tuple(missing)),
        proof="; ".join([proof, *missing]),
        details={"missing": missing},
    )


ACTION: Action[CredentialParams] = Action(
    id="aws.issue-session",
    summary="Issue the agent a new session with its present key.",
    phase=Phase.RECOVER,
    reversibility=Reversibility.IRREVERSIBLE,
    needs=frozenset({"sts:AssumeRole", "sts:GetSessionToken"}),
    scope="one session of one agent; asked for with the agent's own key",
    openc2="restore",
    d3fend="D3-RIC",
    params=CredentialParams,
    key=credential_key,
    plan=_plan,
    capture=_capture,
    apply=_apply,
    verify=_verify,
)
