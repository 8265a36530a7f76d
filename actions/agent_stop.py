"""Kill an agent's process tree and keep it down, once evidence of it is safe.

Memory, descriptors and sockets die with the processes. So the action refuses unless this incident holds a verified
evidence receipt of the same instance, or the caller says why it must go without; the reason stays in the journal.
"""

from __future__ import annotations

from dataclasses import replace

from pydantic import Field

from clawback.action import Action, Context, Plan, Record, Verification
from clawback.actions._ladder import LadderParams, ladder_action
from clawback.errors import Refused
from clawback.model import Level, ReceiptState

__all__ = ["ACTION", "StopParams"]


class StopParams(LadderParams):
    """As for every level, and `without_evidence`: why the tree must die before evidence of it exists."""

    without_evidence: str = Field("", max_length=500)


def _evidence(ctx: Context, params: StopParams) -> str:
    """What the stop rests on. `Refused` where it rests on nothing."""
    for receipt in ctx.incident.receipts:
        if (
            receipt.action == "evidence.collect"
            and receipt.state is ReceiptState.VERIFIED
            and receipt.params.get("agent") == params.agent
            and params.instance in ("", receipt.outcome.get("instance"))
        ):
            return f"evidence {receipt.outcome.get('sha256', '')} is verified"
    if params.without_evidence:
        return f"no evidence; overridden: {params.without_evidence}"
    raise Refused(
        f"{params.agent} is not stopped: this incident holds no verified evidence of it",
        hint="run evidence.collect first, or give without_evidence with the reason",
    )


_level = ladder_action(
    Level.STOP,
    summary="Kill every process of the agent, after evidence, and keep it from starting.",
    scope="all processes in one agent's cgroup; unsaved work is lost",
    openc2="stop",
    d3fend="D3-PT",
    reversible=False,
)


def _plan(ctx: Context, params: StopParams) -> Plan:
    rests_on = _evidence(ctx, params)
    plan = _level.plan(ctx, params)
    return Plan(changes=plan.changes, checks=(*plan.checks, rests_on))


def _capture(ctx: Context, params: StopParams) -> Record:
    return {**_level.capture(ctx, params), "rests_on": _evidence(ctx, params)}


def _verify(ctx: Context, params: StopParams, captured: Record, outcome: Record) -> Verification:
    seen = _level.verify(ctx, params, captured, outcome)
    return replace(seen, proof=f"{seen.proof}; {captured['rests_on']}")


ACTION: Action[StopParams] = Action(
    id=_level.id,
    summary=_level.summary,
    phase=_level.phase,
    reversibility=_level.reversibility,
    needs=_level.needs,
    scope=_level.scope,
    openc2=_level.openc2,
    d3fend=_level.d3fend,
    params=StopParams,
    key=_level.key,
    plan=_plan,
    capture=_capture,
    apply=_level.apply,
    verify=_verify,
    recheck=_level.recheck,
)
