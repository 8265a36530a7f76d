"""Halt many agents by one order, and read each back: all of a host, a tenant, a team, a tag or a tree."""

from __future__ import annotations

from clawback.action import Action, Context, Plan, Record, Reversibility, Verification
from clawback.actions._halts import HaltParams, free_again, matches, standing, stopped
from clawback.model import Enforcement, Level, Phase

__all__ = ["ACTION"]


def _plan(ctx: Context, params: HaltParams) -> Plan:
    agents = matches(ctx, params.selector)
    there = standing(ctx, params.selector)
    named = ", ".join(x.agent for x in agents[:20])
    return Plan(
        changes=() if there else (f"+ halt of {params.selector}: {len(agents)} agents frozen, new ones refused",),
        checks=(f"means now: {named or 'no agent'}", *(f"{one.id} stands already" for one in there)),
    )


def _capture(ctx: Context, params: HaltParams) -> Record:
    return {"agents": [x.agent for x in matches(ctx, params.selector)]}


def _apply(ctx: Context, params: HaltParams, _captured: Record) -> Record:
    there = standing(ctx, params.selector)
    if there:
        return {"halt": there[0].id}
    report = ctx.world.core.halt(
        params.selector, Level.FREEZE, reason=params.reason, by=ctx.actor, incident=ctx.incident.id
    )
    return {"halt": report.halt.id, "agents": len(report.agents), "struck_ms": round(report.struck_ms, 3)}


def _verify(ctx: Context, params: HaltParams, _captured: Record, _outcome: Record) -> Verification:
    there = standing(ctx, params.selector)
    if not there:
        return Verification(
            verified=False, enforcement=Enforcement.NONE, proof=f"no halt of {params.selector} by this incident stands"
        )
    return stopped(ctx, matches(ctx, params.selector), f"{there[0].id}, {params.selector}")


def _revert(ctx: Context, params: HaltParams, _captured: Record) -> None:
    for halt in standing(ctx, params.selector):
        ctx.world.core.lift(halt.id, reason=f"revert of {ctx.incident.id}: {params.reason}"[:500], by=ctx.actor)


def _verify_reverted(ctx: Context, params: HaltParams, captured: Record) -> Verification:
    return free_again(ctx, params.selector, list(captured["agents"]))


ACTION = Action(
    id="agents.halt",
    summary="Freeze every agent that is meant, refuse new ones, and read each back.",
    phase=Phase.CONTAIN,
    reversibility=Reversibility.REVERSIBLE,
    needs=frozenset({"core:halt", "core:halts", "core:lift", "core:agents", "core:probe"}),
    scope="all agents of this host, or those of one tenant, team, tag or tree",
    openc2="contain",
    d3fend="D3-PS",
    params=HaltParams,
    key=lambda params: str(params.selector),
    plan=_plan,
    capture=_capture,
    apply=_apply,
    verify=_verify,
    revert=_revert,
    verify_reverted=_verify_reverted,
)
