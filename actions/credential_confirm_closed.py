"""Confirm that nothing lives of what the agent held: a last walk, once the issuers have settled, and another after it.

Each credential is named with how it was seen closed. One that lives, or of which nobody can say, keeps the incident
open. So does a bound that was hit, and a record that is not yet complete up to the last closing, as CloudTrail's is not
for a quarter of an hour: what was not looked at is not closed. It is confirmed by `clawback resume` after that.
"""

from __future__ import annotations

import time

from pydantic import Field

from clawback.action import Action, Context, Params, Plan, Record, Reversibility, Verification
from clawback.actions._reading import nothing_reverted, revert_nothing
from clawback.actions._tracing import TRACE, trace
from clawback.errors import Refused
from clawback.model import CredentialGraph, CredentialNode, Enforcement, Life, Phase

__all__ = ["ACTION", "ConfirmParams"]

_ID = "credential.confirm-closed"
_SHOWN = 40
_CLOSING = ("aws.", "credential.refuse", "credential.revoke", "vault.")


class ConfirmParams(Params):
    """Whose credentials."""

    agent: str = Field(min_length=1, max_length=128)


def _plan(ctx: Context, params: ConfirmParams) -> Plan:
    graph = trace(ctx, params.agent)
    return Plan(changes=(), checks=(f"{len(graph.nodes)} credentials", *_open(graph)))


def _capture(ctx: Context, params: ConfirmParams) -> Record:
    traced = [x for x in ctx.incident.receipts if x.action == TRACE and x.params.get("agent") == params.agent]
    if not any(receipt.outcome for receipt in traced):
        raise Refused(
            f"nothing of {params.agent}'s was traced in this incident", hint="run credential.trace before closing"
        )
    return {"traces": len(traced)}


def _apply(ctx: Context, params: ConfirmParams, _captured: Record) -> Record:
    """Walk once the newest change has been made for as long as the cloud may still honour what was before."""
    own = next((x for x in ctx.incident.receipts if x.action == _ID and x.params.get("agent") == params.agent), None)
    stamped, closed = closing = _last_closing(ctx, own.outcome if own is not None else {})
    if ctx.world.cloud_or_none is not None and stamped:
        settle = ctx.world.cloud.settle
        left = settle - (time.time_ns() - closed) / 1e9
        if left > 0:
            time.sleep(min(left, settle))
    return {**trace(ctx, params.agent).as_record(), "last_closing": list(closing)}


def _last_closing(ctx: Context, outcome: Record) -> tuple[int, int]:
    """When something was last taken, as its receipt says, and the latest that it can have been. What is given back
    later does not count.

    A receipt of a time to come is one of a clock that was wrong: then it is the time at which this step first saw it,
    which its `outcome` says.
    """
    receipts, now = ctx.incident.receipts, time.time_ns()
    closings = [x for x in receipts if x.action.startswith(_CLOSING) and x.phase is Phase.ERADICATE]
    stamped = max((receipt.applied_ns for receipt in closings), default=0)
    if stamped <= now:
        return stamped, stamped
    before, seen = outcome.get("last_closing", (0, 0))
    return stamped, seen if before == stamped and seen <= now else now


def _verify(ctx: Context, params: ConfirmParams, _captured: Record, outcome: Record) -> Verification:
    """Both walks must find everything closed, and the second nothing that the first had not."""
    first, again = CredentialGraph.from_record(outcome), trace(ctx, params.agent)
    known = {node.key for node in first.nodes}
    new = [node.key for node in again.nodes if node.key not in known]
    late = 0 < again.until_ns < _last_closing(ctx, outcome)[1]
    verified = first.closed and again.closed and not new and not late
    unused = sum(node.life is Life.GONE for node in again.nodes)
    missing = list(again.missing)
    if unused:
        missing.append(f"{unused} by the issuer's record alone: they were not at hand to be used")
    seen = "none alive" if first.closed and again.closed and not new else "NOT all closed"
    said = [f"{len(again.nodes)} credentials, {seen}"]
    if late:
        said.append("OPEN: the cloud's record is not complete up to the last closing: confirm again in 15 minutes")
    said += [f"new since a moment ago: {key}" for key in new[:_SHOWN]]
    said += _open(first if again.closed else again)
    said += [_line(node) for node in again.nodes if node.closed][:_SHOWN]
    if len(again.nodes) > _SHOWN:
        said.append(f"… {len(again.nodes)} in all, in the outcome")
    full = Enforcement.PARTIAL if missing else Enforcement.FULL
    return Verification(
        verified=verified,
        enforcement=full if verified else Enforcement.NONE,
        proof="; ".join([*said, *missing]),
        details={"missing": missing},
    )


def _open(graph: CredentialGraph) -> list[str]:
    """What keeps it from being closed, each by name, with why."""
    return [*(f"OPEN: {_line(node)}" for node in (*graph.alive, *graph.unknown)[:_SHOWN]), *graph.cut]


def _line(node: CredentialNode) -> str:
    return f"{node.key} {node.life.value}, {node.seen}"


ACTION: Action[ConfirmParams] = Action(
    id=_ID,
    summary="Confirm that nothing that came of what the agent held is alive.",
    phase=Phase.ERADICATE,
    reversibility=Reversibility.REVERSIBLE,
    needs=frozenset({"cloudtrail:LookupEvents", "secrets:refs", "vault:auth/token/lookup-accessor"}),
    scope="reads only; uses the agent's old credentials to see them refused",
    openc2="query",
    d3fend="D3-CA",
    params=ConfirmParams,
    key=lambda params: params.agent,
    plan=_plan,
    capture=_capture,
    apply=_apply,
    verify=_verify,
    revert=revert_nothing,
    verify_reverted=nothing_reverted,
)
