"""See that a policy decides in time again: by the engine's reports since somebody looked at it."""

from __future__ import annotations

from datetime import UTC, datetime

from pydantic import Field

from clawback.action import Action, Context, Params, Plan, Record, Reversibility, Verification
from clawback.actions._reading import nothing_reverted, revert_nothing
from clawback.actions._recorded import of_kind
from clawback.model import SLOW_DECISION_MS, Enforcement, Lifecycle, Phase, Source

__all__ = ["ACTION", "TimelyParams"]

_WINDOW_NS = 5 * 60 * 1_000_000_000
_SHARE = 0.01
_FEWEST = 100  # of fewer decisions there is no 99th percentile to speak of


class TimelyParams(Params):
    """The policy. Only what the engine reported after the last finding counts."""

    policy: str = Field(min_length=1, max_length=128)


def _since(ctx: Context, params: TimelyParams) -> list[Lifecycle]:
    after = max((finding.time_ns for finding in ctx.incident.findings), default=ctx.incident.opened_ns)
    return [
        event
        for event in of_kind(ctx, Lifecycle, Source.POLICY, after + 1)
        if event.component == "policy-engine" and event.policy == params.policy and event.decisions
    ]


def _verify(ctx: Context, params: TimelyParams, _captured: Record, _outcome: Record) -> Verification:
    reports = _since(ctx, params)
    last = max((event.time_ns for event in reports), default=0)
    window = [event for event in reports if last - _WINDOW_NS < event.time_ns]
    decisions, slow = sum(x.decisions for x in window), sum(x.slow for x in window)
    timely = decisions > 0 and slow <= _SHARE * decisions
    return Verification(
        verified=timely,
        enforcement=Enforcement.NONE
        if not timely
        else Enforcement.FULL
        if decisions >= _FEWEST
        else Enforcement.PARTIAL,
        proof=f"since the alert {slow} of {decisions} decisions took longer than {SLOW_DECISION_MS:g} ms"
        + (f", in the five minutes to {datetime.fromtimestamp(last // 10**9, UTC):%Y-%m-%dT%H:%M:%SZ}" if last else "")
        + ("; so few show no 99th percentile" if timely and decisions < _FEWEST else "")
        + ("" if timely else "; mend the policy, let it decide for a while, then `clawback resume`"),
    )


ACTION = Action(
    id="policy.timely",
    summary="See that the policy decides in time again.",
    phase=Phase.RECOVER,
    reversibility=Reversibility.REVERSIBLE,
    needs=frozenset({"telemetry:read"}),
    scope="reads only",
    openc2="investigate",
    params=TimelyParams,
    key=lambda params: params.policy,
    plan=lambda ctx, params: Plan(changes=(), checks=(f"{len(_since(ctx, params))} reports since the alert",)),
    capture=lambda _ctx, _params: {},
    apply=lambda _ctx, _params, _captured: {},
    verify=_verify,
    revert=revert_nothing,
    verify_reverted=nothing_reverted,
)
