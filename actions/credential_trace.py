"""Trace what came of an agent's credentials: everything issued from them, by the issuers' own records.

Children, orphans and leases of Vault tokens, secret-ids and logins with them; users' sessions that outlive their key,
roles that were become from roles, keys, users, roles, rights and trust made with what the agent held. Read only. What
is found is closed by `credential.revoke` and `credential.refuse`, and traced again until nothing new is alive.
"""

from __future__ import annotations

from pydantic import Field

from clawback.action import Action, Context, Params, Plan, Record, Reversibility, Verification
from clawback.actions._reading import nothing_reverted, revert_nothing
from clawback.actions._records import Records
from clawback.actions._tracing import Asked, trace
from clawback.errors import Unreachable
from clawback.model import CredentialGraph, Enforcement, Phase

__all__ = ["ACTION", "TraceParams"]

_SHOWN = 20


class TraceParams(Params):
    """The agent, and which walk of the incident it is: each is a step of its own."""

    agent: str = Field(min_length=1, max_length=128)
    turn: int = Field(1, ge=1, le=99)


def _plan(ctx: Context, params: TraceParams) -> Plan:
    graph = trace(ctx, params.agent)
    lines = [f"{node.key}: {node.life.value} ({node.said})" for node in graph.nodes[:_SHOWN]]
    if len(graph.nodes) > _SHOWN:
        lines.append(f"… and {len(graph.nodes) - _SHOWN} more")
    return Plan(changes=(), checks=(*lines, *graph.cut, *graph.missing))


def _capture(ctx: Context, params: TraceParams) -> Record:
    return {"held": [ref.name for ref in ctx.world.secrets.refs(params.agent)]}


def _apply(ctx: Context, params: TraceParams, _captured: Record) -> Record:
    return trace(ctx, params.agent).as_record()


def _verify(ctx: Context, params: TraceParams, _captured: Record, outcome: Record) -> Verification:
    """Each credential is looked at again; the walk counts only if every issuer answered for every one of them."""
    del params
    graph = CredentialGraph.from_record(outcome)
    asked, silent = Asked(Records(ctx)), list(graph.silent)
    for node in graph.nodes:
        if node.key not in silent:
            try:
                asked.life(node)
            except Unreachable:
                silent.append(node.key)
    missing = (*graph.cut, *graph.missing)
    counts = f"{len(graph.nodes)} credentials: {len(graph.alive)} alive, {len(graph.unknown)} unknown"
    said = [counts, *(f"no answer about {key}" for key in silent[:_SHOWN]), *missing]
    verified = not silent
    partial = Enforcement.PARTIAL if missing else Enforcement.FULL
    return Verification(verified=verified, enforcement=partial if verified else Enforcement.NONE, proof="; ".join(said))


ACTION: Action[TraceParams] = Action(
    id="credential.trace",
    summary="Trace everything that was issued from what the agent held.",
    phase=Phase.IDENTIFY,
    reversibility=Reversibility.REVERSIBLE,
    needs=frozenset(
        {
            "cloudtrail:LookupEvents",
            "iam:GetRole",
            "iam:GetRolePolicy",
            "iam:GetUser",
            "iam:GetUserPolicy",
            "iam:ListAccessKeys",
            "iam:ListAttachedRolePolicies",
            "iam:ListAttachedUserPolicies",
            "iam:ListRolePolicies",
            "iam:ListRoles",
            "iam:ListUserPolicies",
            "secrets:refs",
            "sts:GetCallerIdentity",
            "vault:auth/approle/role/+/secret-id",
            "vault:auth/token/accessors",
            "vault:auth/token/lookup-accessor",
            "vault:sys/audit-hash",
            "vault:sys/capabilities-accessor",
            "vault:sys/leases/lookup",
        }
    ),
    scope="reads only",
    openc2="investigate",
    d3fend="D3-CA",
    params=TraceParams,
    key=lambda params: f"{params.agent}:{params.turn}",
    plan=_plan,
    capture=_capture,
    apply=_apply,
    verify=_verify,
    revert=revert_nothing,
    verify_reverted=nothing_reverted,
)
