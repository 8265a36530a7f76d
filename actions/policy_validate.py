"""Replay the rogue calls from inside the relaunched sandbox: recovery holds only if every one of them is denied.

The calls are those that the findings recorded. With none on record nothing can be shown, and the receipt says so.
"""

from __future__ import annotations

from pydantic import Field

from clawback.action import Action, Context, Params, Plan, Record, Reversibility, Verification
from clawback.actions._ladder import hold_levels
from clawback.actions._reading import nothing_reverted, revert_nothing
from clawback.errors import Refused
from clawback.model import AgentState, Attempt, Enforcement, Incident, Phase
from clawback.reports.escape import plain

__all__ = ["ACTION", "ValidateParams", "rogue_calls"]

_MOST = 64  # distinct calls; a flood of variants of one call is cut here and said


class ValidateParams(Params):
    """The agent, and the instance whose sandbox the calls are tried in; empty: whichever runs."""

    agent: str = Field(min_length=1, max_length=128)
    instance: str = Field("", max_length=128)


def rogue_calls(incident: Incident) -> tuple[Attempt, ...]:
    """What the incident's findings want to see denied, each once, oldest finding first."""
    found = dict.fromkeys(
        (str(kind), str(target))
        for finding in sorted(incident.findings, key=lambda x: x.time_ns)
        for kind, target in finding.attempts
    )
    return tuple(Attempt(kind=kind, target=target) for kind, target in found)


def _plan(ctx: Context, params: ValidateParams) -> Plan:
    calls = rogue_calls(ctx.incident)[:_MOST]
    info = ctx.world.core.agent(params.agent)
    checks = []
    for call in calls:
        if call.kind in {"http", "connect"}:
            said = ctx.world.policies.decide(info.policy, call)
            checks.append(
                f"{call.kind} {call.target}: version {said.policy_version} would "
                f"{'ALLOW' if said.allowed else 'deny'} it ({said.rule or 'no rule'})"
            )
        else:
            checks.append(f"{call.kind} {call.target}: will be tried in the sandbox")
    return Plan(changes=(), checks=tuple(checks) or ("no rogue call is on record: nothing can be replayed",))


def _capture(ctx: Context, _params: ValidateParams) -> Record:
    calls = rogue_calls(ctx.incident)
    return {"calls": [[call.kind, call.target] for call in calls[:_MOST]]}


def _apply(_ctx: Context, _params: ValidateParams, _captured: Record) -> Record:
    return {}


def _verify(ctx: Context, params: ValidateParams, captured: Record, _outcome: Record) -> Verification:
    info = ctx.world.core.agent(params.agent)
    if params.instance and info.instance != params.instance:
        raise Refused(f"{params.agent} is instance {info.instance} now, not {params.instance}")
    if held := hold_levels(info):
        # Inside a quarantine everything is denied: that would prove the hold, not the policy.
        raise Refused(f"{params.agent} is held at {held[0].word}: a replay would show the hold, not the policy")
    if info.state is not AgentState.RUNNING:
        raise Refused(f"{params.agent} is {info.state.value}: there is no sandbox to replay in")
    # Findings may have joined since, and what was captured first is kept by the journal: replay both.
    known = dict.fromkeys((str(kind), str(target)) for kind, target in captured["calls"])
    known |= dict.fromkeys((call.kind, call.target) for call in rogue_calls(ctx.incident))
    calls = tuple(Attempt(kind=kind, target=target) for kind, target in list(known)[:_MOST])
    if not calls:
        return Verification(
            verified=False,
            enforcement=Enforcement.NONE,
            proof="no rogue call is on record, so nothing was shown: review and close by hand",
        )
    results = ctx.world.core.attempt(params.agent, calls)
    denied = {(x.attempt.kind, x.attempt.target): x.detail for x in results if x.denied}
    answered = {(x.attempt.kind, x.attempt.target): x.detail for x in results}
    open_ = [call for call in calls if (call.kind, call.target) not in denied]
    left_out = len(known) - len(calls)
    # What was not denied comes first: a proof is cut at its end.
    lines = [
        f"{call.kind} {plain(call.target, 120)} → NOT denied: "
        f"{plain(answered.get((call.kind, call.target), 'no answer'), 120)}"
        for call in open_
    ]
    lines += [
        f"{kind} {plain(target, 120)} → denied: {plain(detail, 120)}" for (kind, target), detail in denied.items()
    ]
    more = f"; {left_out} further calls were not replayed" if left_out else ""
    return Verification(
        verified=not open_ and not left_out,
        enforcement=Enforcement.FULL
        if not open_ and not left_out
        else Enforcement.PARTIAL
        if denied
        else Enforcement.NONE,
        proof=f"{len(denied)} of {len(calls)} rogue calls denied from inside instance {info.instance}: "
        + "; ".join(lines)
        + more,
        details={"denied": len(denied), "tried": len(calls), "instance": info.instance},
    )


ACTION = Action(
    id="policy.validate",
    summary="Replay the observed rogue calls in the relaunched sandbox and see each denied.",
    phase=Phase.RECOVER,
    reversibility=Reversibility.REVERSIBLE,
    needs=frozenset({"core:attempt", "core:agent", "policies:decide"}),
    scope="one agent's sandbox; calls that are still allowed are really made",
    openc2="investigate",
    d3fend="D3-NTF",
    params=ValidateParams,
    key=lambda params: f"{params.agent}:{params.instance}",
    plan=_plan,
    capture=_capture,
    apply=_apply,
    verify=_verify,
    revert=revert_nothing,
    verify_reverted=nothing_reverted,
)
