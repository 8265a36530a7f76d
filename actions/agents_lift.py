"""End this incident's halt of many agents: whom nothing else holds goes on where it was frozen."""

from __future__ import annotations

from clawback.action import Action, Context, Plan, Record, Reversibility, Verification
from clawback.actions._halts import HaltParams, free_again, matches, standing, stopped
from clawback.model import Enforcement, Level, Phase

__all__ = ["ACTION"]


def _plan(ctx: Context, params: HaltParams) -> Plan:
    there = standing(ctx, params.selector)
    named = ", ".join(x.agent for x in matches(ctx, params.selector)[:20])
    return Plan(
        changes=tuple(f"- {one.id}: halt of {one.selector}, since {one.order.placed_ns} ns" for one in there),
        checks=(f"agents that may go on, if nothing else holds them: {named or 'none'}",),
    )


def _capture(ctx: Context, params: HaltParams) -> Record:
    there = standing(ctx, params.selector)
    return {
        "agents": [x.agent for x in matches(ctx, params.selector)] if there else [],
        "reason": there[0].order.reason if there else params.reason,
    }


def _apply(ctx: Context, params: HaltParams, _captured: Record) -> Record:
    there = standing(ctx, params.selector)
    for halt in there:
        ctx.world.core.lift(halt.id, reason=params.reason, by=ctx.actor)
    return {"lifted": [halt.id for halt in there]}


def _verify(ctx: Context, params: HaltParams, captured: Record, _outcome: Record) -> Verification:
    return free_again(ctx, params.selector, list(captured["agents"]))


def _revert(ctx: Context, params: HaltParams, captured: Record) -> None:
    if captured["agents"] and not standing(ctx, params.selector):
        reason = f"lifting reverted: {captured['reason']}"[:500]
        ctx.world.core.halt(params.selector, Level.FREEZE, reason=reason, by=ctx.actor, incident=ctx.incident.id)


def _verify_reverted(ctx: Context, params: HaltParams, captured: Record) -> Verification:
    if not captured["agents"]:
        return Verification(verified=True, enforcement=Enforcement.NONE, proof="there was no halt to put back")
    if not standing(ctx, params.selector):
        return Verification(verified=False, enforcement=Enforcement.NONE, proof="the halt is not there again")
    return stopped(ctx, matches(ctx, params.selector), "halted again")


ACTION = Action(
    id="agents.lift",
    summary="End this incident's halt; agents that nothing else holds go on.",
    phase=Phase.RECOVER,
    reversibility=Reversibility.COMPENSABLE,  # they ran in between
    needs=frozenset({"core:lift", "core:halts", "core:halt", "core:agents", "core:probe"}),
    scope="every agent that the halt holds",
    openc2="allow",
    consent=True,
    params=HaltParams,
    key=lambda params: str(params.selector),
    plan=_plan,
    capture=_capture,
    apply=_apply,
    verify=_verify,
    revert=_revert,
    verify_reverted=_verify_reverted,
)
