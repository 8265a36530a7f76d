"""The quarantine ladder's levels as actions: one shape, five files that say what each level means.

Verifying never believes what applying answered: it probes the level again, from the victim's side.
"""

from __future__ import annotations

from pydantic import Field

from clawback.action import Action, Context, Params, Plan, Record, Reversibility, Verification
from clawback.actions._replaced import replaced
from clawback.errors import Refused
from clawback.model import AgentInfo, AgentState, Enforcement, Level, LevelResult, Phase, ReceiptState

__all__ = ["LadderParams", "gone", "hold_levels", "ladder_action", "released", "result_record", "seen"]


class LadderParams(Params):
    """One level of one agent.

    instance   the instance that is meant; another one is refused by the core, unless this incident's own recovery
               replaced it. Empty: whichever runs when the order is first given
    require    the least that counts as done: `full`, or `partial` where a host may lack a part of the level and the
               caller takes what there is. What is missing is named in the proof either way
    again      a number that tells a later order of the same level from the first, within one incident
    unless     the key of a step of this incident that the order is given because of, not being verified: once it is,
               the order is not given any more
    """

    agent: str = Field(min_length=1, max_length=128)
    instance: str = Field("", max_length=128)
    reason: str = Field(min_length=1, max_length=500)
    require: Enforcement = Enforcement.FULL
    again: int = Field(0, ge=0)
    unless: str = Field("", max_length=512)


def hold_levels(info: AgentInfo) -> tuple[Level, ...]:
    """The levels that the agent is ordered to be kept at now, lowest first."""
    return tuple(sorted(info.hold.levels)) if info.hold else ()


def gone(ctx: Context, info: AgentInfo) -> bool:
    """Whether no process of the agent is left: by the core's record, or, until it is told, by looking."""
    return (
        info.state is not AgentState.RUNNING
        or ctx.world.core.probe(info.agent, Level.STOP).enforcement is Enforcement.FULL
    )


def result_record(result: LevelResult) -> dict[str, object]:
    """A level's result as the journal keeps it."""
    return {
        "level": result.level.word,
        "enforcement": result.enforcement.value,
        "observed": result.observed,
        "missing": list(result.missing),
        "counts": dict(result.counts),
        "elapsed_ms": round(result.elapsed_ms, 3),
        "at_ns": result.at_ns,
    }


def _let_go(ctx: Context, agent: str, instance: str) -> bool:
    """Whether this incident began to let the instance go, and does not undo that: an order that could not be proved
    before is then not given again, or it would keep what is let go.
    """
    return any(
        receipt.action == "agent.release"
        and receipt.params.get("agent") == agent
        and not receipt.params.get("levels")
        and receipt.captured.get("instance") == instance
        and not receipt.state.taken_back
        for receipt in ctx.incident.receipts
    )


def _void(ctx: Context, key: str) -> str:
    """The action of the step with this key, where that is verified."""
    found = (x.action for x in ctx.incident.receipts if x.key == key and x.state is ReceiptState.VERIFIED)
    return next(found, "") if key else ""


def _every_process_stopped(result: LevelResult) -> bool:
    processes = result.counts.get("processes", 0)
    return processes > 0 and result.counts.get("frozen") == processes


def _network_cut(result: LevelResult) -> bool:
    """Nothing passes by the network; what is missing are descriptors that lead out, each named."""
    return result.counts.get("uncut") == 0 and result.counts.get("leads_out", 0) > 0


def seen(result: LevelResult, require: Enforcement) -> bool:
    """Whether what was observed is the level's postcondition.

    A partial freeze (signals, where there is no cgroup) is one only if every process was counted as stopped. A partial
    isolation is one if all of the network is cut: a pipe to the terminal that the agent was started from may stay.
    """
    if result.enforcement is Enforcement.FULL:
        return True
    if result.enforcement is Enforcement.NONE:
        return False
    if result.level is Level.FREEZE:
        return _every_process_stopped(result)
    if result.level is Level.ISOLATE and _network_cut(result):
        return True
    return require is Enforcement.PARTIAL


def _proof(result: LevelResult) -> str:
    missing = f"; not enforced: {', '.join(result.missing)}" if result.missing else ""
    return f"{result.level.word}: {result.observed or 'nothing observed'}{missing}"


def released(ctx: Context, agent: str, level: Level) -> Verification:
    """Whether one level no longer holds: neither ordered nor observed."""
    info = ctx.world.core.agent(agent)
    if level in hold_levels(info):
        return Verification(
            verified=False, enforcement=Enforcement.FULL, proof=f"the hold of {agent} still orders {level.word}"
        )
    if gone(ctx, info):
        # Probing the dead says that nothing runs, which is true and no containment of ours.
        return Verification(
            verified=True, enforcement=Enforcement.NONE, proof="not ordered any more; its processes are gone"
        )
    left = ctx.world.core.probe(agent, level)
    return Verification(
        verified=left.enforcement is Enforcement.NONE,
        enforcement=left.enforcement,
        proof=f"not ordered any more; {_proof(left)}",
        details=result_record(left),
    )


def ladder_action(
    level: Level,
    *,
    summary: str,
    scope: str,
    openc2: str,
    d3fend: str = "",
    reflex: bool = False,
    reversible: bool = True,
) -> Action[LadderParams]:
    """One level as an action. Irreversible levels have no revert: release says what is left, a relaunch ends it."""
    action_id = f"agent.{level.word}"

    def key(params: LadderParams) -> str:
        # Not the reason: the playbook must find what the reflex did.
        return f"{params.agent}:{params.instance}" + (f":{params.again}" if params.again else "")

    def plan(ctx: Context, params: LadderParams) -> Plan:
        info = ctx.world.core.agent(params.agent)
        now = ctx.world.core.probe(params.agent, level)
        held = ", ".join(item.word for item in hold_levels(info)) or "nothing"
        wanted = f"{level.word} held" if reversible else f"{level.word} held, which no release undoes"
        return Plan(
            changes=(f"- {params.agent}: {level.word} {now.enforcement.value}", f"+ {params.agent}: {wanted}"),
            checks=(
                f"{params.agent} is instance {info.instance}, {info.state.value}, held at: {held}",
                _proof(now),
            ),
        )

    def capture(ctx: Context, params: LadderParams) -> Record:
        info = ctx.world.core.agent(params.agent)
        return {"instance": info.instance, "held": [item.word for item in hold_levels(info)]}

    def meant(params: LadderParams, captured: Record) -> str:
        return params.instance or str(captured["instance"])

    def apply(ctx: Context, params: LadderParams, captured: Record) -> Record:
        instance = meant(params, captured)
        if not params.again and _let_go(ctx, params.agent, instance):
            return {"let_go": instance}
        if settled := _void(ctx, params.unless):
            return {"void": settled}
        if not params.instance and (over := replaced(ctx, ctx.world.core.agent(params.agent), instance)):
            return {"over": over}
        try:
            made = ctx.world.core.contain(
                params.agent,
                level,
                instance=params.instance,
                reason=params.reason,
                by=ctx.actor,
                incident=ctx.incident.id,
            )
        except Refused:
            if over := replaced(ctx, ctx.world.core.agent(params.agent), params.instance):
                return {"over": over}
            raise
        return result_record(made)

    def verify(ctx: Context, params: LadderParams, captured: Record, outcome: Record) -> Verification:
        result = ctx.world.core.probe(params.agent, level)
        info = ctx.world.core.agent(params.agent)
        if over := replaced(ctx, info, meant(params, captured)):
            return Verification(verified=True, enforcement=Enforcement.FULL, proof=over)
        proof, verified = _proof(result), seen(result, params.require)
        if (settled := outcome.get("void")) and level not in hold_levels(info):
            return Verification(
                verified=True,
                enforcement=result.enforcement,
                proof=f"not called for any more, {settled} is verified; not ordered; {proof}",
            )
        if params.instance and info.instance != params.instance:
            proof, verified = f"instance {info.instance} is there, not {params.instance}; {proof}", False
        if level not in hold_levels(info):
            # True now, and nothing keeps it true: a restart of anything may undo it.
            ordered = "not ordered again, for it was let go since" if outcome.get("let_go") else "no hold orders it"
            proof, verified = f"{ordered}; {proof}", False
        return Verification(
            verified=verified, enforcement=result.enforcement, proof=proof, details=result_record(result)
        )

    def recheck(ctx: Context, params: LadderParams, captured: Record, _outcome: Record) -> Verification | None:
        info = ctx.world.core.agent(params.agent)
        if info.instance != meant(params, captured) or level not in hold_levels(info):
            # Replaced, or let go by somebody who may: whatever is ordered, the core itself keeps.
            return None
        if level is not Level.STOP and gone(ctx, info):
            return None
        result = ctx.world.core.probe(params.agent, level)
        return Verification(verified=seen(result, params.require), enforcement=result.enforcement, proof=_proof(result))

    def revert(ctx: Context, params: LadderParams, captured: Record) -> None:
        if level.word in captured["held"]:
            return  # somebody's hold from before this incident: not ours to lift
        info = ctx.world.core.agent(params.agent)
        if level not in hold_levels(info) or replaced(ctx, info, meant(params, captured)):
            return  # whatever holds the instance that is there now, another step ordered it
        ctx.world.core.release(
            params.agent,
            levels=(level,),
            reason=f"revert of {ctx.incident.id}: {params.reason}",
            by=ctx.actor,
            incident=ctx.incident.id,
        )

    def verify_reverted(ctx: Context, params: LadderParams, captured: Record) -> Verification:
        if level.word in captured["held"]:
            now = ctx.world.core.probe(params.agent, level)
            return Verification(
                verified=level in hold_levels(ctx.world.core.agent(params.agent)),
                enforcement=now.enforcement,
                proof=f"was held before this incident, left so; {_proof(now)}",
            )
        if over := replaced(ctx, ctx.world.core.agent(params.agent), meant(params, captured)):
            return Verification(verified=True, enforcement=Enforcement.NONE, proof=over)
        return released(ctx, params.agent, level)

    return Action(
        id=action_id,
        summary=summary,
        phase=Phase.CONTAIN,
        reversibility=Reversibility.REVERSIBLE if reversible else Reversibility.IRREVERSIBLE,
        needs=frozenset({f"core:{level.word}", "core:probe"} | ({"core:release"} if reversible else set())),
        scope=scope,
        openc2=openc2,
        d3fend=d3fend,
        reflex=reflex,
        params=LadderParams,
        key=key,
        plan=plan,
        capture=capture,
        apply=apply,
        verify=verify,
        recheck=recheck,
        revert=revert if reversible else None,
        verify_reverted=verify_reverted if reversible else None,
    )
