"""Replay the rogue calls from inside the relaunched sandbox: recovery holds only if every one is denied, and logged.

The calls are those that the findings recorded, also in incidents that handed the agent's release over to this one.
With none on record, as when a sandbox merely went down, a destination that no policy can allow is tried instead: that
shows that the sandbox denies, and the receipt claims no more. A denial of which no event is in the telemetry is one
that nobody would have seen: then the replay is not verified. The policy's text is asked too: a stage of the release,
or an order at the gateway, denies more than it, and both end.
"""

from __future__ import annotations

import time

from pydantic import Field

from clawback.action import Action, Context, Params, Plan, Record, Reversibility, Verification
from clawback.actions._ladder import hold_levels
from clawback.actions._logged import unlogged
from clawback.actions._reading import nothing_reverted, revert_nothing
from clawback.actions._rogue import answers_for, rogue_calls_of
from clawback.errors import Refused
from clawback.model import AgentState, Attempt, Enforcement, Narrowing, Phase, staged_from
from clawback.reports.escape import plain

__all__ = ["ACTION", "ValidateParams"]

_BASELINE = (Attempt(kind="connect", target="clawback-check.invalid:443"),)  # RFC 2606: never a real host
_AT_ONCE = 8  # the core gives ten seconds for all of one order, and a staged agent has little processor time
_MOST = 256  # distinct calls; a flood of variants of one call is cut here and said


class ValidateParams(Params):
    """The agent, and the instance that was replaced: trying the calls in that one again would show nothing. `stage`
    tells the replays in the stages of one release apart.
    """

    agent: str = Field(min_length=1, max_length=128)
    replaced: str = Field("", max_length=128)
    stage: str = Field("", max_length=32)


def _plan(ctx: Context, params: ValidateParams) -> Plan:
    calls = rogue_calls_of(ctx, params.agent)[:_MOST]
    info = ctx.world.core.agent(params.agent)
    checks = []
    for call in calls:
        if call.kind in {"http", "connect"}:
            said = ctx.world.policies.decide(info.policy, call)
            checks.append(
                f"{call.kind} {plain(call.target, 120)}: version {said.policy_version} would "
                f"{'ALLOW' if said.allowed else 'deny'} it ({said.rule or 'no rule'})"
            )
        else:
            checks.append(f"{call.kind} {plain(call.target, 120)}: will be tried in the sandbox")
    return Plan(changes=(), checks=tuple(checks) or ("no rogue call is on record: nothing can be replayed",))


def _capture(ctx: Context, params: ValidateParams) -> Record:
    calls = rogue_calls_of(ctx, params.agent)
    return {"calls": [[call.kind, call.target] for call in calls[:_MOST]]}


def _apply(ctx: Context, params: ValidateParams, _captured: Record) -> Record:
    # Refused here, the step is failed and what an earlier replay showed stays on its receipt.
    return {"instance": _ready(ctx, params)}


def _ready(ctx: Context, params: ValidateParams) -> str:
    """The instance to replay in. `Refused` where a replay would prove nothing."""
    info = ctx.world.core.agent(params.agent)
    if info.instance == params.replaced:
        raise Refused(f"{params.agent} is still instance {info.instance}: it was not relaunched")
    if held := hold_levels(info):
        # Inside a quarantine everything is denied: that would prove the hold, not the policy.
        raise Refused(f"{params.agent} is held at {held[0].word}: a replay would show the hold, not the policy")
    if info.state is not AgentState.RUNNING:
        raise Refused(f"{params.agent} is {info.state.value}: there is no sandbox to replay in")
    return info.instance


def _verify(ctx: Context, params: ValidateParams, captured: Record, _outcome: Record) -> Verification:
    instance = _ready(ctx, params)
    # Findings may have joined since, and what was captured first is kept by the journal: replay both.
    known = dict.fromkeys((str(kind), str(target)) for kind, target in captured["calls"])
    known |= dict.fromkeys((call.kind, call.target) for call in rogue_calls_of(ctx, params.agent))
    calls = tuple(Attempt(kind=kind, target=target) for kind, target in list(known)[:_MOST]) or _BASELINE
    began = time.time_ns()
    results = [
        result
        for start in range(0, len(calls), _AT_ONCE)
        for result in ctx.world.core.attempt(params.agent, calls[start : start + _AT_ONCE])
    ]
    answers = {(x.attempt.kind, x.attempt.target): x for x in results}
    denied, allowed = [], _allowed_by_policy(ctx, params, calls)
    silent = unlogged(ctx, params.agent, instance, [x.attempt for x in results if x.denied], since_ns=began)
    for call in calls:
        answer = answers.get((call.kind, call.target))
        said = f"{call.kind} {plain(call.target, 120)} → {plain(answer.detail, 120) if answer else 'no answer'}"
        if call in silent:
            allowed.append(f"denied, and not logged: {said}")
        elif answer is not None and answer.denied:
            denied.append(said)
        else:
            allowed.append(f"NOT denied: {said}")
    left_out = max(0, len(known) - len(calls))
    whole = not allowed and not left_out
    what = "rogue calls" if known else "calls (no rogue call is on record: one that no policy can allow)"
    parts = [f"{len(denied)} of {len(calls)} {what} denied and logged, from inside instance {instance}"]
    ordered = sum(", by order " in said for said in denied)
    taken = [x.id for x in answers_for(ctx, params.agent)]
    parts += [f"those of {', '.join(taken)} among them, which handed its release over"] * bool(taken)
    parts += [f"{ordered} of them by an order, which says nothing of the policy"] * bool(ordered)
    parts += [f"{left_out} further calls were not replayed"] * bool(left_out)
    shown = whole and bool(known) and not ordered
    # What was not denied comes first: a proof is cut at its end.
    return Verification(
        verified=whole,
        enforcement=Enforcement.FULL if shown else Enforcement.PARTIAL if denied else Enforcement.NONE,
        proof="; ".join([*parts, *allowed, *denied]),
        details={"denied": len(denied), "tried": len(calls), "instance": instance},
    )


def _allowed_by_policy(ctx: Context, params: ValidateParams, calls: tuple[Attempt, ...]) -> list[str]:
    """What the policy itself would allow, in words: by its text alone, without stages and without orders."""
    policy = ctx.world.core.agent(params.agent).policy
    base = staged_from(policy) or policy
    asked = tuple(call for call in calls if call.kind in ("http", "connect"))
    if not base or not asked:
        return []
    version = ctx.world.policies.active(base).version
    decisions = ctx.world.policies.draft(base, version, Narrowing(), attempts=asked).decisions
    return [
        f"NOT denied by {base} version {version}: {call.kind} {plain(call.target, 120)} ({said.rule})"
        for call, said in zip(asked, decisions, strict=True)
        if said.allowed
    ]


ACTION = Action(
    id="policy.validate",
    summary="Replay the observed rogue calls in the relaunched sandbox and see each denied.",
    phase=Phase.RECOVER,
    reversibility=Reversibility.REVERSIBLE,
    needs=frozenset({"core:attempt", "core:agent", "policies:decide", "policies:draft", "telemetry:read"}),
    scope="one agent's sandbox; calls that are still allowed are really made",
    openc2="investigate",
    params=ValidateParams,
    key=lambda params: f"{params.agent}:{params.replaced}" + (f":{params.stage}" if params.stage else ""),
    plan=_plan,
    capture=_capture,
    apply=_apply,
    verify=_verify,
    revert=revert_nothing,
    verify_reverted=nothing_reverted,
)
