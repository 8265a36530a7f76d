"""End the halts that this incident ordered: whom nothing else holds goes on where it was frozen."""

from __future__ import annotations

from pydantic import Field

from clawback.action import Action, Context, Params, Plan, Record, Reversibility, Verification
from clawback.actions._halts import as_record, free_again, from_record, matches, standing, stopped, strike
from clawback.model import Enforcement, Phase

__all__ = ["ACTION", "LiftParams"]


class LiftParams(Params):
    """Why it ends."""

    reason: str = Field(min_length=1, max_length=500)


def _plan(ctx: Context, _params: LiftParams) -> Plan:
    there = standing(ctx)
    named = sorted({x.agent for one in there for x in matches(ctx, one.selector)})
    return Plan(
        changes=tuple(f"- {one.id}: halt of {one.selector}" for one in there),
        checks=(f"may go on, if nothing else holds them: {', '.join(named[:20]) or 'nobody'}",),
    )


def _capture(ctx: Context, _params: LiftParams) -> Record:
    return {
        "halts": [
            {
                "selector": as_record(one.selector),
                "reason": one.order.reason,
                "agents": [x.agent for x in matches(ctx, one.selector)],
            }
            for one in standing(ctx)
        ]
    }


def _apply(ctx: Context, params: LiftParams, _captured: Record) -> Record:
    there = standing(ctx)
    for halt in there:
        ctx.world.core.lift(halt.id, reason=params.reason, by=ctx.actor)
    return {"lifted": [halt.id for halt in there]}


def _verify(ctx: Context, _params: LiftParams, captured: Record, _outcome: Record) -> Verification:
    return free_again(ctx, None, [name for one in captured["halts"] for name in one["agents"]])


def _revert(ctx: Context, _params: LiftParams, captured: Record) -> None:
    for one in captured["halts"]:
        selector = from_record(one["selector"])
        if selector is not None:
            strike(ctx, selector, list(one["agents"]), f"lifting reverted: {one['reason']}")


def _verify_reverted(ctx: Context, _params: LiftParams, captured: Record) -> Verification:
    selectors = [selector for one in captured["halts"] if (selector := from_record(one["selector"])) is not None]
    if not selectors:
        return Verification(verified=True, enforcement=Enforcement.NONE, proof="there was no halt to put back")
    if missing := [str(selector) for selector in selectors if not standing(ctx, selector)]:
        return Verification(
            verified=False, enforcement=Enforcement.NONE, proof=f"not halted again: {', '.join(missing)}"
        )
    names = {name: None for one in captured["halts"] for name in one["agents"]}
    return stopped(ctx, selectors, list(names), "halted again")


ACTION = Action(
    id="agents.lift",
    summary="End this incident's halts; agents that nothing else holds go on.",
    phase=Phase.RECOVER,
    reversibility=Reversibility.COMPENSABLE,  # they ran in between
    needs=frozenset({"core:lift", "core:halts", "core:halt", "core:agents", "core:probe"}),
    scope="every agent that the halts hold",
    openc2="allow",
    consent=True,
    params=LiftParams,
    key=lambda _params: "halts",
    plan=_plan,
    capture=_capture,
    apply=_apply,
    verify=_verify,
    revert=_revert,
    verify_reverted=_verify_reverted,
)
