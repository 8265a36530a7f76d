"""Watch an agent during a stage of its release, and say whether it behaved.

It did not if it was contained again, if a finding about it came, if nobody knows how it ended, or if it tried a call
that its own policy denies, not only the stage. What the stage alone holds back is counted and is no misbehaviour; nor
is ending with an error, as programs do that are denied everything. `clean` in the outcome is the answer; a receipt that
is verified says that it was watched for as long as it says.
"""

from __future__ import annotations

import itertools
import time

from pydantic import Field

from clawback.action import Action, Context, Params, Plan, Record, Reversibility, Verification
from clawback.actions._ladder import hold_levels
from clawback.actions._reading import nothing_reverted, revert_nothing
from clawback.actions._rogue import rogue_calls_of
from clawback.actions._stages import base_of, calls_of
from clawback.errors import Refused
from clawback.model import AgentInfo, AgentState, Enforcement, Narrowing, Phase
from clawback.reports.escape import plain

__all__ = ["ACTION", "WatchParams"]

_LOOK_SECONDS = 0.2
_READ_EVERY = 5  # looks: the telemetry is read anew each time
_AS_IT_IS = Narrowing()


class WatchParams(Params):
    """`stage` is `observe-only` or `restricted`; `seconds` 0 is what the settings say for it."""

    agent: str = Field(min_length=1, max_length=128)
    instance: str = Field("", max_length=128)
    stage: str = Field(pattern="^(observe-only|restricted)$")
    seconds: float = Field(0, ge=0, le=7 * 86_400)


def _seconds(ctx: Context, params: WatchParams) -> float:
    terms = ctx.world.recovery
    return params.seconds or (terms.observe_seconds if params.stage == "observe-only" else terms.restricted_seconds)


def _plan(ctx: Context, params: WatchParams) -> Plan:
    info = ctx.world.core.agent(params.agent)
    return Plan(changes=(), checks=(f"{info.agent} instance {info.instance}: watched for {_seconds(ctx, params):g} s",))


def _capture(ctx: Context, params: WatchParams) -> Record:
    info = ctx.world.core.agent(params.agent)
    if params.instance and info.instance != params.instance:
        raise Refused(f"{params.agent} is instance {info.instance}, and {params.instance} was to be watched")
    return {
        "instance": info.instance,
        "policy": base_of(info),
        "since_ns": time.time_ns(),
        "seconds": _seconds(ctx, params),
        "findings": len(ctx.incident.findings),
    }


def _apply(ctx: Context, params: WatchParams, captured: Record) -> Record:
    """Looks until the time is over or there is something to see; gone on with after a crash, not begun anew."""
    passed = (time.time_ns() - captured["since_ns"]) / 1e9
    end = time.monotonic() + min(captured["seconds"], max(0.0, captured["seconds"] - passed))
    ended = False
    for look in itertools.count():
        held_back, own = _refused(ctx, params, captured) if look % _READ_EVERY == 0 else (0, "")
        info = ctx.world.core.agent(params.agent)
        why = _contained(ctx, info, captured) or own
        ended = info.state is not AgentState.RUNNING
        left = end - time.monotonic()
        if why or ended or left <= 0:  # once it has ended nothing more will come
            break
        time.sleep(min(_LOOK_SECONDS, left))
    held_back, own = _refused(ctx, params, captured)
    return {
        "clean": not (why or own),
        "because": why or own,
        "watched_ms": max(0, (time.time_ns() - captured["since_ns"]) // 1_000_000),
        "held_back": held_back,
        "ended": ended,
        "exit_status": info.exit_status if ended else None,
    }


def _contained(ctx: Context, info: AgentInfo, captured: Record) -> str:
    if info.instance != captured["instance"]:
        return f"instance {info.instance} is there, not {captured['instance']}"
    if held := hold_levels(info):
        reason = f": {plain(info.hold.reason, 160)}" if info.hold else ""
        return f"it was contained again at {held[-1].word}{reason}"
    if info.state is AgentState.LOST:
        return "it is lost, and nobody knows how it ended"
    for incident in ctx.history(info.agent):
        for finding in incident.findings:
            if finding.instance == captured["instance"]:
                return f"{incident.id}: {finding.detector} at {plain(finding.resource, 120)}"
    return ""


def _refused(ctx: Context, params: WatchParams, captured: Record) -> tuple[int, str]:
    """How many different calls the stage alone held back, and the first that the agent's own policy denies."""
    sighted = ctx.world.telemetry.events(
        agent=params.agent, instance=captured["instance"], since_ns=captured["since_ns"]
    )
    calls = calls_of(sighted.events, blocked=True)
    if not calls:
        return 0, ""
    version = ctx.world.policies.active(captured["policy"]).version
    draft = ctx.world.policies.draft(captured["policy"], version, _AS_IT_IS, attempts=calls)
    for call, said in zip(calls, draft.decisions, strict=True):
        if not said.allowed:
            kind = "a rogue call" if call in rogue_calls_of(ctx, params.agent) else "a call"
            return 0, f"it tried {kind} that {captured['policy']} denies: {call.kind} {plain(call.target, 120)}"
    return len(calls), ""


def _verify(ctx: Context, params: WatchParams, captured: Record, outcome: Record) -> Verification:
    """Looked at once more: what came between the last look and now is not passed over."""
    info = ctx.world.core.agent(params.agent)
    why = outcome["because"] or _contained(ctx, info, captured) or _refused(ctx, params, captured)[1]
    watched = f"watched for {outcome['watched_ms'] / 1000:.1f} of {captured['seconds']:g} s in {params.stage}"
    if outcome["clean"] and why:
        return Verification(verified=False, enforcement=Enforcement.NONE, proof=f"{watched}; and then: {why}")
    if why:
        return Verification(verified=True, enforcement=Enforcement.NONE, proof=f"MISBEHAVED: {why}; {watched}")
    wrong = _not_watched(ctx, info, captured, outcome)
    held_back = f"; {outcome['held_back']} different calls held back by the stage" if outcome["held_back"] else ""
    return Verification(
        verified=not wrong,
        enforcement=Enforcement.NONE if wrong else Enforcement.FULL,
        proof="; ".join(wrong)
        or f"instance {captured['instance']} {watched}: no finding, no hold{held_back}"
        + (f"; it ended, exit status {outcome['exit_status']}" if outcome["ended"] else ""),
    )


def _not_watched(ctx: Context, info: AgentInfo, captured: Record, outcome: Record) -> list[str]:
    """Why what is said of the watch is not so, or would not have been seen, in words."""
    wrong: list[str] = []
    passed_ms = (time.time_ns() - captured["since_ns"]) / 1e6
    if not outcome["clean"]:
        wrong.append("it is said to have misbehaved, and nothing says how")
    if outcome["ended"] and info.state is AgentState.RUNNING:
        wrong.append("it is said to have ended, and runs")
    if outcome["watched_ms"] > passed_ms + 1:
        wrong.append(
            f"it is said to have been watched for {outcome['watched_ms'] / 1000:.1f} s, in {passed_ms / 1000:.1f}"
        )
    if outcome["watched_ms"] < captured["seconds"] * 1000 and not outcome["ended"]:
        wrong.append(f"it was watched for {outcome['watched_ms'] / 1000:.1f} of {captured['seconds']:g} s only")
    since, instance = info.started_ns, captured["instance"]
    if not ctx.world.telemetry.events(agent=info.agent, instance=instance, since_ns=since, most=1).events:
        # The core says of every sandbox that it started and that it lives: where that is not, nothing else is either.
        wrong.append(f"the telemetry has no event of instance {instance}: nobody would have seen what it did")
    return wrong


ACTION = Action(
    id="release.watch",
    summary="Watch the agent during a stage of its release, and say whether it behaved.",
    phase=Phase.RECOVER,
    reversibility=Reversibility.REVERSIBLE,
    needs=frozenset({"core:agent", "telemetry:read", "policies:draft"}),
    scope="reads only",
    openc2="detect",
    params=WatchParams,
    key=lambda params: f"{params.agent}:{params.instance}:{params.stage}",
    plan=_plan,
    capture=_capture,
    apply=_apply,
    verify=_verify,
    revert=revert_nothing,
    verify_reverted=nothing_reverted,
)
