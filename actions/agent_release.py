"""Lift the hold on an agent, and say what stays enforced without it.

Freeze, isolate and restrict end with the hold. Seal and stop do not: they hold for as long as the old processes exist,
and only a relaunch ends that. Where other incidents hold the agent too, it stays held: this one's order is lifted, and
the release is handed over to them (`held_by` in the outcome); whoever takes it over answers for what the agent did in
the incidents that did so (`answers_for`). The last to lift its order finds no other's, and lets the
agent go; so two incidents that hold each other's agents cannot wait for each other. Reverting contains the agent again
at the levels that were recorded, if it is still the instance that was let go: one that was started since was never held
by what is reverted.
"""

from __future__ import annotations

from pydantic import Field, field_validator

from clawback.action import Action, Context, Params, Plan, Record, Reversibility, Verification
from clawback.actions._ladder import gone, hold_levels, result_record, seen
from clawback.actions._rogue import answers_for
from clawback.model import (
    AgentInfo,
    AgentState,
    Enforcement,
    IncidentStatus,
    Level,
    LevelResult,
    Order,
    Phase,
)

__all__ = ["ACTION", "ReleaseParams"]

_LASTING = frozenset({Level.SEAL, Level.STOP})


class ReleaseParams(Params):
    """`levels` by word (`freeze` …); none is the whole hold."""

    agent: str = Field(min_length=1, max_length=128)
    instance: str = Field("", max_length=128)
    reason: str = Field(min_length=1, max_length=500)
    levels: tuple[str, ...] = ()

    @field_validator("levels")
    @classmethod
    def _known(cls, words: tuple[str, ...]) -> tuple[str, ...]:
        known = {level.word for level in Level}
        if unknown := [word for word in words if word not in known]:
            raise ValueError(f"no such level: {unknown[0]!r}; there are {', '.join(sorted(known))}")
        return words


def _levels(words: object) -> tuple[Level, ...]:
    names = [str(word) for word in words] if isinstance(words, (list, tuple)) else []
    return tuple(Level[name.upper()] for name in names)


def _key(params: ReleaseParams) -> str:
    return f"{params.agent}:{params.instance}:{','.join(sorted(params.levels))}"


def _plan(ctx: Context, params: ReleaseParams) -> Plan:
    info = ctx.world.core.agent(params.agent)
    held = hold_levels(info)
    wanted = _levels(params.levels) or held
    left = [level.word for level in wanted if level in _LASTING]
    return Plan(
        changes=(
            f"- {params.agent}: held at {', '.join(level.word for level in held) or 'nothing'}",
            f"+ {params.agent}: held at {', '.join(x.word for x in held if x not in wanted) or 'nothing'}",
        ),
        checks=(f"stays until a relaunch: {', '.join(left)}",) if left else (),
    )


def _orders(ctx: Context, info: AgentInfo, *, others: bool) -> tuple[Order, ...]:
    """The orders that this release lifts, or those that it does not. What was ordered by hand belongs to whoever works
    on the agent.
    """
    orders = info.hold.orders if info.hold else ()
    return tuple(x for x in orders if others == (bool(x.halt) or x.incident not in ("", ctx.incident.id)))


def _in(orders: tuple[Order, ...]) -> tuple[Level, ...]:
    return tuple(sorted({level for order in orders for level in order.levels}))


def _lets_go(ctx: Context, order: Order, agent: str) -> bool:
    """Whether the order's incident goes on and will itself come to let the agent go: as its own agent, or by a release
    that is still to be made.
    """
    incident = ctx.other(order.incident) if order.incident and not order.halt else None
    if incident is None or incident.status is not IncidentStatus.OPEN or incident.undoing:
        return False
    made = [x for x in incident.receipts if x.action == "agent.release" and x.params.get("agent") == agent]
    return incident.agent == agent or not any(x.state.settled and not x.params.get("levels") for x in made)


def _capture(ctx: Context, params: ReleaseParams) -> Record:
    info = ctx.world.core.agent(params.agent)
    held = _in(_orders(ctx, info, others=False))
    wanted = _levels(params.levels) or held
    return {
        "instance": info.instance,
        "held": [level.word for level in held],
        "released": [level.word for level in wanted if level in held],
        "reason": info.hold.reason if info.hold else "",
    }


def _apply(ctx: Context, params: ReleaseParams, captured: Record) -> Record:
    # From what stands now: after a crash, some or all of it is lifted already.
    held = _in(_orders(ctx, ctx.world.core.agent(params.agent), others=False))
    levels = tuple(level for level in _levels(captured["released"]) if level in held)
    results: tuple[LevelResult, ...] = ()
    if levels:
        results = ctx.world.core.release(
            params.agent, levels=levels, reason=params.reason, by=ctx.actor, incident=ctx.incident.id
        )
    # Read after the lifting: of all whose orders are lifted, the last one to read finds none.
    info = ctx.world.core.agent(params.agent)
    asked = set(_levels(params.levels) or Level)
    theirs = (x for x in _orders(ctx, info, others=True) if asked & set(x.levels))
    heirs = {x.incident for x in theirs if _lets_go(ctx, x, params.agent)}
    return {
        "left": [result_record(result) for result in results],
        "held_by": sorted(heirs),
        "ended": not heirs and _ended(ctx, info),
        "answers_for": sorted(x.id for x in answers_for(ctx, params.agent)),
    }


def _ended(ctx: Context, info: AgentInfo) -> bool:
    """Its processes are gone, and not because it had done its work: only a relaunch brings it back."""
    return gone(ctx, info) and not (info.state is AgentState.EXITED and info.exit_status == 0)


def _verify(ctx: Context, params: ReleaseParams, captured: Record, outcome: Record) -> Verification:
    info = ctx.world.core.agent(params.agent)
    levels = _levels(captured["released"])
    if heirs := outcome.get("held_by"):
        return _handed_over(ctx, info, levels, heirs)
    asked = _levels(params.levels)
    if still := [level.word for level in hold_levels(info) if level in asked or not asked]:
        return Verification(
            verified=False, enforcement=Enforcement.NONE, proof=f"the hold still orders {', '.join(still)}"
        )
    if not levels:
        return Verification(verified=True, enforcement=Enforcement.FULL, proof="no hold was there to lift")
    if gone(ctx, info):
        return Verification(
            verified=True,
            enforcement=Enforcement.PARTIAL,
            proof=f"hold on {', '.join(level.word for level in levels)} lifted; its processes are gone, "
            "only a relaunch brings it back",
        )
    left = {level: ctx.world.core.probe(params.agent, level) for level in levels}
    stuck = [level.word for level, x in left.items() if level not in _LASTING and x.enforcement is not Enforcement.NONE]
    lasting = [level.word for level, x in left.items() if level in _LASTING and x.enforcement is not Enforcement.NONE]
    said = "; ".join(f"{level.word}: {x.enforcement.value} ({x.observed})" for level, x in left.items())
    after = f"; stays enforced until a relaunch: {', '.join(lasting)}" if lasting else ""
    return Verification(
        verified=not stuck,
        enforcement=Enforcement.PARTIAL if stuck or lasting else Enforcement.FULL,
        proof=f"hold lifted; what still holds: {said}{after}",
        details={"left": [result_record(result) for result in left.values()]},
    )


def _handed_over(ctx: Context, info: AgentInfo, levels: tuple[Level, ...], heirs: list[str]) -> Verification:
    mine = [level.word for level in _in(_orders(ctx, info, others=False)) if level in levels]
    theirs = [x for x in _orders(ctx, info, others=True) if x.incident not in heirs]
    if wrong := [*mine, *(f"{level.word} ({x.holder})" for x in theirs for level in x.levels)]:
        return Verification(
            verified=False, enforcement=Enforcement.NONE, proof=f"the hold still orders {', '.join(wrong)}"
        )
    lifted = ", ".join(level.word for level in levels) or "nothing"
    now = ", ".join(level.word for level in hold_levels(info)) or "nothing any more"
    return Verification(
        verified=True,
        enforcement=Enforcement.PARTIAL,
        proof=f"this incident's hold on {lifted} lifted; held by {', '.join(heirs)}, to which its release is handed "
        f"over (now at {now})",
    )


def _revert(ctx: Context, params: ReleaseParams, captured: Record) -> None:
    if ctx.world.core.agent(params.agent).instance != captured["instance"]:
        return
    for level in sorted(_levels(captured["released"])):  # freeze first: nothing may run while the rest is rebuilt
        ctx.world.core.contain(
            params.agent,
            level,
            reason=f"release reverted: {captured['reason'] or params.reason}"[:500],
            by=ctx.actor,
            incident=ctx.incident.id,
        )


def _verify_reverted(ctx: Context, params: ReleaseParams, captured: Record) -> Verification:
    info = ctx.world.core.agent(params.agent)
    if info.instance != captured["instance"]:
        return Verification(
            verified=True,
            enforcement=Enforcement.NONE,
            proof=f"instance {captured['instance']}, which was let go, is gone; {info.instance} was started since",
        )
    held = hold_levels(info)
    results = [ctx.world.core.probe(params.agent, level) for level in _levels(captured["released"])]
    good = [seen(result, Enforcement.FULL) and result.level in held for result in results]
    return Verification(
        verified=all(good),
        enforcement=Enforcement.FULL if all(good) else Enforcement.PARTIAL if any(good) else Enforcement.NONE,
        proof="contained again: " + ("; ".join(f"{x.level.word}: {x.observed}" for x in results) or "at nothing"),
    )


ACTION = Action(
    id="agent.release",
    summary="Lift the agent's hold, and say what stays enforced.",
    phase=Phase.RECOVER,
    reversibility=Reversibility.COMPENSABLE,
    needs=frozenset({"core:release", "core:probe", "core:contain"}),
    scope="the hold on one agent; no process is started",
    openc2="allow",
    params=ReleaseParams,
    key=_key,
    plan=_plan,
    capture=_capture,
    apply=_apply,
    verify=_verify,
    revert=_revert,
    verify_reverted=_verify_reverted,
)
