"""Undo what the agent's identities changed in IAM during the incident: policies, attachments, boundaries, trust.

CloudTrail names the changes and who made them; each thing is put back to what the last change by anybody else had made
of it (see `_changes`), but only where it still is as the agent left it, or as this incident's closing did: what
somebody mended since is left alone. Other ways in that the agent made (keys, users, groups) are named;
`aws.disable-foreign-credentials` has the keys. It waits for a person, because rights of others may hang on it; the plan
is the diff.

Proof: IAM shows every thing as it was, for as long as it may still know the state before, and the record names no later
change by the agent; one that comes later fails the proof, and a run with a higher `revision` takes it. CloudTrail lags
by up to fifteen minutes, so on AWS nothing is ever called complete. Undone by putting back what the agent left.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from pydantic import Field, field_validator

from clawback.action import Action, Context, Params, Plan, Record, Reversibility, Verification
from clawback.actions._changes import NAMES, Change, by_agent, changes, moment, others
from clawback.actions._credentials import enforcement, key_id, rechecked, sealed, unsealed, watch_refused
from clawback.errors import NotEnforced, NotFound
from clawback.model import Enforcement, Phase

__all__ = ["ACTION", "RevertChangesParams"]

_HISTORY_NS = 90 * 24 * 3600 * 1_000_000_000  # how far back CloudTrail's event history goes


class RevertChangesParams(Params):
    """Whose changes, and from when.

    since         ISO 8601 with a zone: the start of the incident
    access_keys   access key ids besides those of the agent's credentials, such as of keys that it made
    revision      higher for another run in the same incident
    """

    agent: str = Field(min_length=1, max_length=128)
    since: str = Field(max_length=40)
    access_keys: tuple[str, ...] = Field((), max_length=200)
    revision: int = Field(0, ge=0)

    @field_validator("since")
    @classmethod
    def _moment(cls, value: str) -> str:
        if datetime.fromisoformat(value).tzinfo is None:
            raise ValueError("no time zone; end it with Z or an offset")
        return value


@dataclass(frozen=True, slots=True, kw_only=True)
class _Found:
    """What is to be put back, what is left and why, what other steps have, and what was not read of the record."""

    todo: tuple[tuple[Change, Any], ...]  # with the state now
    left: tuple[str, ...]
    others: tuple[str, ...]
    cut: tuple[str, ...]


def _look(ctx: Context, params: RevertChangesParams) -> _Found:
    store = ctx.world.secrets
    keys, users, roles = set(params.access_keys), set(), set()
    for ref in store.refs(params.agent):
        if ref.kind not in ("aws-access-key", "aws-session"):
            continue
        values = (store.current(params.agent, ref.name), store.old(params.agent, ref.name))
        keys |= {ref.identifiers.get("access_key_id", ""), *(key_id(value) for value in values if value)}
        users |= {ref.identifiers.get("user", "")}
        roles |= {ref.identifiers.get("role", "")}
    since_ns = _ns(params.since)
    trail = ctx.world.cloud_records.trail_named(NAMES, since_ns=since_ns - _HISTORY_NS)
    ours = by_agent(trail.events, keys=keys - {""}, users=users, roles=roles)
    todo, left, taken = [], [], _taken(ctx)
    for change in changes(trail.events, ours, since_ns=since_ns, whole=not trail.since_ns):
        try:
            now = _state(ctx, change.principal, change.kind, change.name)
        except NotFound:
            continue  # the principal is gone, and what it had with it
        if change.known and now == change.was:
            continue
        if not change.known:
            left.append(f"{_words(change)}: what it was is in no record; mend it by hand")
        elif now != change.left and not (now in (None, False) and f"{change.principal}/{change.name}" in taken):
            left.append(f"{_words(change)}: changed since by somebody else; left as it is")
        else:
            todo.append((change, now))
    return _Found(todo=tuple(todo), left=tuple(left), others=others(ours, since_ns=since_ns), cut=trail.cut)


def _taken(ctx: Context) -> set[str]:
    """Rights that this incident's own closing took away: what they were before the agent is still to be put back."""
    return {
        str(x.params.get("id", ""))
        for x in ctx.incident.receipts
        if x.action == "credential.refuse" and x.params.get("kind") == "aws-grant" and x.applied_ns
    }


def _state(ctx: Context, principal: str, kind: str, name: str) -> Any:
    cloud = ctx.world.cloud
    if kind == "inline":
        return cloud.inline_policy(principal, name)
    if kind == "attached":
        return name in cloud.attached(principal)
    return cloud.boundary(principal) if kind == "boundary" else cloud.trust(principal)


def _set(ctx: Context, principal: str, kind: str, name: str, state: Any) -> None:
    cloud = ctx.world.cloud
    if kind == "inline":
        cloud.inline_delete(principal, name) if state is None else cloud.inline_put(principal, name, state)
    elif kind == "attached":
        cloud.attach(principal, name) if state else cloud.detach(principal, name)
    elif kind == "boundary":
        cloud.boundary_set(principal, state) if state else cloud.boundary_remove(principal)
    else:
        cloud.trust_set(principal, state)


def _words(change: Change | Record) -> str:
    facts = (change.principal, change.kind, change.name) if isinstance(change, Change) else _key(change)
    return " ".join(part for part in facts if part)


def _key(row: Record) -> tuple[str, str, str]:
    return str(row["principal"]), str(row["kind"]), str(row["name"])


def _shown(state: Any) -> str:
    if state in (None, "", False):
        return "none"
    return "attached" if state is True else state if isinstance(state, str) else json.dumps(state, sort_keys=True)


def _plan(ctx: Context, params: RevertChangesParams) -> Plan:
    found = _look(ctx, params)
    lines = []
    for change, now in found.todo:
        lines += [f"- {_words(change)}: {_shown(now)}", f"+ {_words(change)}: {_shown(change.was)}"]
    return Plan(
        changes=tuple(lines),
        checks=(
            *(
                f"{_words(change)}: changed by the agent at {', '.join(moment(time) for time in change.times_ns[-3:])}"
                for change, _ in found.todo
            ),
            *found.left,
            *(f"not undone here: {line}" for line in found.others),
            *found.cut,
        ),
    )


def _ns(moment_: str) -> int:
    """Unix nanoseconds; to the microsecond, as moments are given."""
    at = datetime.fromisoformat(moment_)
    return (int(at.timestamp()) * 1_000_000 + at.microsecond) * 1_000


def _capture(ctx: Context, params: RevertChangesParams) -> Record:
    found = _look(ctx, params)
    return {
        "changes": [
            {
                "principal": change.principal,
                "kind": change.kind,
                "name": change.name,
                "states": sealed({"was": change.was, "now": now}),
            }
            for change, now in found.todo
        ]
    }


def _apply(ctx: Context, params: RevertChangesParams, captured: Record) -> Record:
    del params
    for row in captured["changes"]:
        _set(ctx, *_key(row), unsealed(row["states"])["was"])
    return {"undone": [_words(row) for row in captured["changes"]]}


def _verify(ctx: Context, params: RevertChangesParams, captured: Record, outcome: Record) -> Verification:
    wrong = []
    for row in captured["changes"]:
        was = unsealed(row["states"])["was"]

        def differs(row: Record = row, was: Any = was) -> tuple[bool, str]:
            now = _state(ctx, *_key(row))
            return now != was, _shown(now)[:300]

        same, now = watch_refused(differs, ctx.world.cloud.settle)
        wrong += [] if same else [f"{_words(row)} IS {now}"]
    found = _look(ctx, params)
    again = [
        f"{_words(change)} was CHANGED AGAIN by the agent" for change, _ in found.todo if _words(change) not in wrong
    ]
    verified = not wrong and not again
    missing = (*found.left, *(f"not undone here: {line}" for line in found.others), *found.cut)
    return Verification(
        verified=verified,
        enforcement=enforcement(verified=verified, missing=missing),
        proof="; ".join(
            [f"{len(outcome['undone'])} changes are as they were in IAM"] * verified + [*wrong, *again, *missing]
        ),
        details={"undone": outcome["undone"], "missing": list(missing)},
    )


def _recheck(ctx: Context, params: RevertChangesParams, captured: Record, _outcome: Record) -> Verification:
    """Whether anything is again as the agent had left it; another state is its owner's business."""
    del params
    again = []
    for row in captured["changes"]:
        try:
            if _state(ctx, *_key(row)) == unsealed(row["states"])["now"]:
                again.append(_words(row))
        except NotFound:
            continue  # the principal is gone, and what it had with it
    return rechecked(
        holds=not again,
        proof=f"AGAIN AS THE AGENT LEFT IT: {'; '.join(again)}" if again else "nothing is as the agent left it",
    )


def _revert(ctx: Context, params: RevertChangesParams, captured: Record) -> None:
    del params
    gone = []
    for row in captured["changes"]:
        try:
            _set(ctx, *_key(row), unsealed(row["states"])["now"])
        except NotFound:
            gone.append(_words(row))
    if gone:
        raise NotEnforced(f"gone since: {'; '.join(gone)}", hint="the rest was put back as the agent had left it")


def _verify_reverted(ctx: Context, params: RevertChangesParams, captured: Record) -> Verification:
    del params
    rows = captured["changes"]
    wrong = [_words(row) for row in rows if _state(ctx, *_key(row)) != unsealed(row["states"])["now"]]
    return Verification(
        verified=not wrong,
        enforcement=Enforcement.NONE if wrong else Enforcement.FULL,
        proof=f"not as the agent left it: {'; '.join(wrong)}"
        if wrong
        else f"{len(rows)} things are as the agent left them",
    )


ACTION: Action[RevertChangesParams] = Action(
    id="aws.revert-agent-changes",
    summary="Undo what the agent changed in IAM during the incident.",
    phase=Phase.ERADICATE,
    reversibility=Reversibility.REVERSIBLE,
    consent=True,
    needs=frozenset(
        {
            "cloudtrail:LookupEvents",
            "iam:AttachRolePolicy",
            "iam:AttachUserPolicy",
            "iam:DeleteRolePermissionsBoundary",
            "iam:DeleteRolePolicy",
            "iam:DeleteUserPermissionsBoundary",
            "iam:DeleteUserPolicy",
            "iam:DetachRolePolicy",
            "iam:DetachUserPolicy",
            "iam:GetRole",
            "iam:GetRolePolicy",
            "iam:GetUser",
            "iam:GetUserPolicy",
            "iam:ListAttachedRolePolicies",
            "iam:ListAttachedUserPolicies",
            "iam:PutRolePermissionsBoundary",
            "iam:PutRolePolicy",
            "iam:PutUserPermissionsBoundary",
            "iam:PutUserPolicy",
            "iam:UpdateAssumeRolePolicy",
            "sts:GetCallerIdentity",
        }
    ),
    scope="what the agent's identities changed in IAM since a moment, on any user or role",
    openc2="restore",
    d3fend="D3-UAP",
    params=RevertChangesParams,
    key=lambda params: f"{params.agent}/{params.since}/{','.join(params.access_keys)}/{params.revision}",
    plan=_plan,
    capture=_capture,
    apply=_apply,
    verify=_verify,
    recheck=_recheck,
    revert=_revert,
    verify_reverted=_verify_reverted,
)
