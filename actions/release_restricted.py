"""Let the agent make again only the calls that it was seen to make before the incident, and none that was rogue.

Second stage of a release: a version of the agent's own copy of its policy, in force at once, without a restart; an
agent that ended meanwhile, as some do that are denied everything, is started anew under it. The engine is asked about
every call; the rogue ones are tried from inside too. Reverting returns to the stage before.
"""

from __future__ import annotations

from dataclasses import dataclass

from pydantic import Field

from clawback.action import Action, Context, Params, Plan, Record, Reversibility, Verification
from clawback.actions._ladder import hold_levels
from clawback.actions._stages import (
    base_of,
    decides_by,
    diff_of,
    known_good,
    not_as_started,
    of_use,
    put,
    rogue,
    seen_denied,
    staged,
)
from clawback.errors import Refused
from clawback.model import AgentInfo, AgentState, Attempt, Draft, Enforcement, Narrowing, Phase
from clawback.reports.escape import plain

__all__ = ["ACTION", "RestrictedParams"]


class RestrictedParams(Params):
    """The agent, and the instance that is observed; empty: whichever is there."""

    agent: str = Field(min_length=1, max_length=128)
    instance: str = Field("", max_length=128)
    reason: str = Field(min_length=1, max_length=500)


def _observed(ctx: Context, params: RestrictedParams) -> AgentInfo:
    """The agent, as the stage before left it. `Refused` where it is not there, or was stopped from being there."""
    info = ctx.world.core.agent(params.agent)
    if params.instance and info.instance != params.instance:
        raise Refused(f"{params.agent} is instance {info.instance}, and {params.instance} was observed")
    if info.policy != staged(base_of(info), params.agent):
        raise Refused(
            f"{params.agent} runs under {info.policy}: its release is not staged", hint="run release.observe-only first"
        )
    if held := hold_levels(info):
        raise Refused(f"{params.agent} is held at {held[0].word}", hint="it was contained again: look at why")
    return info


@dataclass(frozen=True, slots=True)
class _Stage:
    """The text for the stage, what it was made from, and which of both kinds of calls it decides otherwise than meant.
    `complete`: all of the time that is looked back on could be read.
    """

    draft: Draft
    keep: tuple[Attempt, ...]
    open: tuple[Attempt, ...]
    lost: tuple[Attempt, ...]
    complete: bool


def _stage(ctx: Context, base: str, version: int, agent: str) -> _Stage:
    bad = rogue(ctx, agent)
    keep, complete = of_use(ctx, agent=agent, policy=base)
    narrowing = Narrowing(deny=bad, keep=keep, drop=True, share=ctx.world.recovery.share)
    draft = ctx.world.policies.draft(base, version, narrowing, attempts=(*bad, *keep))
    said = [one.allowed for one in draft.decisions]
    open_ = tuple(call for call, allowed in zip(bad, said[: len(bad)], strict=True) if allowed)
    lost = tuple(call for call, allowed in zip(keep, said[len(bad) :], strict=True) if not allowed)
    return _Stage(draft, keep, open_, lost, complete)


def _plan(ctx: Context, params: RestrictedParams) -> Plan:
    info = ctx.world.core.agent(params.agent)
    base = base_of(info)
    good = known_good(ctx, params.agent, base)
    stage = _stage(ctx, base, good.version, params.agent)
    return Plan(
        changes=diff_of(stage.draft) or (f"+ {staged(base, params.agent)}: the whole of {base}",),
        checks=(
            f"{len(stage.keep)} different calls of use are on record"
            + ("" if stage.complete else ", and older ones may not be: the telemetry does not go back so far"),
            f"{params.agent} is instance {info.instance} under {info.policy}",
            *_refusals(ctx, params, stage),
        ),
    )


def _refusals(ctx: Context, params: RestrictedParams, stage: _Stage) -> list[str]:
    """What would stand in the way, in words."""
    wrong = [f"REFUSED: it would still allow {one.kind} {plain(one.target, 120)}" for one in stage.open[:20]]
    try:
        _observed(ctx, params)
    except Refused as error:
        wrong.append(f"REFUSED, as things stand: {error.message}")
    return wrong


def _capture(ctx: Context, params: RestrictedParams) -> Record:
    info = _observed(ctx, params)
    base = base_of(info)
    good = known_good(ctx, params.agent, base)
    before = ctx.world.policies.active(info.policy)
    return {
        "instance": info.instance,
        "policy": base,
        "version": good.version,
        "sha256": good.sha256,
        "staged": info.policy,
        "staged_version": before.version,
        "staged_sha256": before.sha256,
        "layers": {name: value.value for name, value in info.layers.items()},
    }


def _apply(ctx: Context, params: RestrictedParams, captured: Record) -> Record:
    info = ctx.world.core.agent(params.agent)
    if info.instance == captured["instance"]:
        _observed(ctx, params)
    stage = _stage(ctx, captured["policy"], captured["version"], params.agent)
    if stage.open:
        raise Refused(
            f"the stage would allow {len(stage.open)} rogue calls, {plain(stage.open[0].target, 120)} first",
            hint="policy.tighten",
        )
    new = put(ctx, captured["staged"], stage.draft.text, f"restricted: {params.reason}")
    if info.state is not AgentState.RUNNING and info.instance == captured["instance"]:
        info = ctx.world.core.relaunch(
            params.agent,
            policy=captured["staged"],
            policy_version=new.version,
            policy_text=stage.draft.text,
            reason=params.reason,
            by=ctx.actor,
        )
    return {
        "instance": info.instance,
        "policy": captured["staged"],
        "policy_version": new.version,
        "sha256": new.sha256,
        "calls": len(stage.keep) - len(stage.lost),
        "not_allowed": [f"{call.kind} {plain(call.target, 200)}" for call in stage.lost[:20]],
        "complete": stage.complete,
        "changes": [plain(one, 200) for one in stage.draft.changes[:20]],
    }


def _verify(ctx: Context, params: RestrictedParams, captured: Record, outcome: Record) -> Verification:
    info = ctx.world.core.agent(params.agent)
    wrong: list[str] = []
    if info.instance != outcome["instance"] or info.policy != captured["staged"]:
        wrong.append(f"instance {info.instance} under {info.policy} is there, not {outcome['instance']}")
    if info.instance != captured["instance"]:
        started = {**outcome, "policy_version": info.policy_version}
        wrong += not_as_started(ctx, info, captured, started, may_fail=True)
    if held := hold_levels(info):
        wrong.append(f"it is held at {held[0].word}")
    if by := decides_by(ctx, captured["staged"], outcome["sha256"]):
        wrong.append(by)
    denied = 0
    if not wrong and info.state is AgentState.RUNNING:
        denied, open_ = seen_denied(ctx, params.agent, rogue(ctx, params.agent))
        wrong += open_
    lost = outcome["not_allowed"]
    return Verification(
        verified=not wrong,
        enforcement=Enforcement.NONE if wrong else Enforcement.FULL if outcome["complete"] else Enforcement.PARTIAL,
        proof="; ".join(wrong)
        or f"{captured['staged']} version {outcome['policy_version']} decides: {outcome['calls']} calls of use "
        f"allowed, {denied} rogue and unheard-of ones denied from inside instance {info.instance}"
        + ("" if outcome["complete"] else "; the telemetry did not go back as far as was asked")
        + (f"; of use, and not allowed by the policy: {', '.join(lost)}" if lost else ""),
    )


def _revert(ctx: Context, params: RestrictedParams, captured: Record) -> None:
    ctx.world.policies.restore(
        captured["staged"],
        captured["staged_version"],
        author=ctx.actor,
        reason=f"restricted reverted: {params.reason}"[:500],
        incident=ctx.incident.id,
    )


def _verify_reverted(ctx: Context, _params: RestrictedParams, captured: Record) -> Verification:
    by = decides_by(ctx, captured["staged"], captured["staged_sha256"])
    return Verification(
        verified=not by,
        enforcement=Enforcement.NONE if by else Enforcement.FULL,
        proof=by or f"{captured['staged']} is as version {captured['staged_version']} was, the stage before",
    )


ACTION = Action(
    id="release.restricted",
    summary="Allow the agent only the calls that it was seen to make before the incident.",
    phase=Phase.RECOVER,
    reversibility=Reversibility.REVERSIBLE,
    needs=frozenset(
        {"core:relaunch", "core:agent", "core:attempt", "policies:put", "policies:draft", "telemetry:read"}
    ),
    scope="one agent's own copy of its policy; it never allows more than the policy does",
    openc2="allow",
    params=RestrictedParams,
    key=lambda params: f"{params.agent}:{params.instance}",
    plan=_plan,
    capture=_capture,
    apply=_apply,
    verify=_verify,
    revert=_revert,
    verify_reverted=_verify_reverted,
)
