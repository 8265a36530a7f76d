"""Halt many agents by one order, and read each back: all of a host, a tenant, a team, a tag or a tree."""

from __future__ import annotations

from pydantic import Field, model_validator

from clawback.action import Action, Context, Params, Plan, Record, Reversibility, Verification
from clawback.actions._halts import as_record, free_again, from_record, matches, standing, stopped, strike
from clawback.model import Enforcement, Phase, Selector, SelectorKind

__all__ = ["ACTION", "HaltParams"]

AS_SET = "as-set"


class HaltParams(Params):
    """Which agents: `all`, `tenant`, `team`, `tag` (as `K=V`), `tree` (an agent with all that work for it), or
    `as-set`: whom the settings want halted when the sandbox of the agent `value` is down.
    """

    kind: str = Field(pattern=r"^(all|tenant|team|tag|tree|as-set)$")
    value: str = Field("", max_length=128)
    reason: str = Field(min_length=1, max_length=500)

    @model_validator(mode="after")
    def _value(self) -> HaltParams:
        if (self.kind == "all") is bool(self.value):
            raise ValueError(f"{self.kind} {'takes no value' if self.value else 'needs a value'}")
        return self


def _selector(ctx: Context, params: HaltParams) -> Selector | None:
    """Whom it means; None where the settings want nobody halted."""
    if params.kind != AS_SET:
        return Selector(kind=SelectorKind(params.kind), value=params.value)
    wanted = ctx.world.sandbox_down_halts
    if wanted == "none":
        return None
    info = ctx.world.core.agent(params.value)
    value = {"tenant": info.tenant, "team": info.team}.get(wanted, "")
    # An agent of no tenant or team is nobody's alone: then all are meant, which is the safe side.
    return Selector(kind=SelectorKind(wanted), value=value) if value else Selector(kind=SelectorKind.ALL)


def _plan(ctx: Context, params: HaltParams) -> Plan:
    selector = _selector(ctx, params)
    if selector is None:
        return Plan(changes=(), checks=("the settings want nobody halted",))
    agents, there = matches(ctx, selector), standing(ctx, selector)
    named = ", ".join(x.agent for x in agents[:20])
    return Plan(
        changes=() if there else (f"+ halt of {selector}: {len(agents)} agents frozen, new ones refused",),
        checks=(f"means now: {named or 'no agent'}", *(f"{one.id} stands already" for one in there)),
    )


def _capture(ctx: Context, params: HaltParams) -> Record:
    selector = _selector(ctx, params)
    agents = [x.agent for x in matches(ctx, selector)] if selector else []
    return {"selector": as_record(selector), "agents": agents}


def _apply(ctx: Context, params: HaltParams, captured: Record) -> Record:
    selector = from_record(captured["selector"])
    return {} if selector is None else strike(ctx, selector, list(captured["agents"]), params.reason)


def _verify(ctx: Context, _params: HaltParams, captured: Record, outcome: Record) -> Verification:
    selector = from_record(captured["selector"])
    if selector is None:
        return Verification(verified=True, enforcement=Enforcement.NONE, proof="nobody halted: the settings say so")
    there = standing(ctx, selector)
    if not there:
        return Verification(
            verified=False, enforcement=Enforcement.NONE, proof=f"no halt of {selector} by this incident stands"
        )
    seen = stopped(ctx, [selector], list(captured["agents"]), f"{there[0].id}, {selector}")
    meant, struck = len(matches(ctx, selector)), int(outcome.get("agents", 0))
    if meant < struck:
        proof = f"{seen.proof}; it was struck at {struck} agents, and {meant} are listed"
        return Verification(verified=False, enforcement=Enforcement.PARTIAL, proof=proof)
    return seen


def _recheck(ctx: Context, params: HaltParams, captured: Record, outcome: Record) -> Verification | None:
    selector = from_record(captured["selector"])
    if selector is None or not standing(ctx, selector):
        return None  # nobody was meant, or it was lifted: by the response, or by somebody who may
    return _verify(ctx, params, captured, outcome)


def _revert(ctx: Context, params: HaltParams, captured: Record) -> None:
    selector = from_record(captured["selector"])
    for halt in standing(ctx, selector) if selector else ():
        ctx.world.core.lift(halt.id, reason=f"revert of {ctx.incident.id}: {params.reason}"[:500], by=ctx.actor)


def _verify_reverted(ctx: Context, _params: HaltParams, captured: Record) -> Verification:
    return free_again(ctx, from_record(captured["selector"]), list(captured["agents"]))


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
    key=lambda params: f"{params.kind} {params.value}".strip(),
    plan=_plan,
    capture=_capture,
    apply=_apply,
    verify=_verify,
    recheck=_recheck,
    revert=_revert,
    verify_reverted=_verify_reverted,
)
