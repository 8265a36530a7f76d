"""Decide whether the agent may be brought back without a person, or was brought back too often already.

An agent that goes rogue again right after its recovery would else be recovered again, each time. Counted are the
incidents of the agent, not this one, in which it was started anew within the time that the settings name. `automatic`
in the outcome is the answer; where it is false the agent stays stopped until a person permits it (`recovery.permit`).
"""

from __future__ import annotations

import time

from pydantic import Field

from clawback.action import Action, Context, Params, Plan, Record, Reversibility, Verification
from clawback.actions._reading import nothing_reverted, revert_nothing
from clawback.model import Enforcement, Phase, ReceiptState

__all__ = ["ACTION", "CheckParams", "earlier_recoveries"]

_STARTS = frozenset({"agent.relaunch", "release.observe-only"})
_UNDONE = frozenset({ReceiptState.AWAITING, ReceiptState.INTENDED, ReceiptState.FAILED})
_HOUR_NS = 3_600 * 1_000_000_000


class CheckParams(Params):
    """The agent, and the instance that this incident is about."""

    agent: str = Field(min_length=1, max_length=128)
    instance: str = Field("", max_length=128)


def earlier_recoveries(ctx: Context, at_ns: int) -> tuple[str, ...]:
    """Ids of the agent's other incidents that started it anew within the time that counts before `at_ns`, or since."""
    since = at_ns - int(ctx.world.recovery.within_hours * _HOUR_NS)
    return tuple(
        incident.id
        for incident in ctx.history(ctx.incident.agent)
        if incident.id != ctx.incident.id
        and any(
            receipt.action in _STARTS and receipt.state not in _UNDONE and receipt.applied_ns >= since
            for receipt in incident.receipts
        )
    )


def _said(earlier: tuple[str, ...], ctx: Context) -> str:
    terms = ctx.world.recovery
    times = f"{len(earlier)} time(s) in {terms.within_hours:g} h" + (f" ({', '.join(earlier)})" if earlier else "")
    if len(earlier) < terms.most:
        return f"recovered {times} before, {terms.most} may be without a person: it is brought back"
    return f"recovered {times} before, {terms.most} may be without a person: it stays stopped until one permits it"


def _plan(ctx: Context, _params: CheckParams) -> Plan:
    return Plan(changes=(), checks=(_said(earlier_recoveries(ctx, time.time_ns()), ctx),))


def _apply(ctx: Context, _params: CheckParams, _captured: Record) -> Record:
    at_ns = time.time_ns()
    earlier = earlier_recoveries(ctx, at_ns)
    return {"automatic": len(earlier) < ctx.world.recovery.most, "earlier": list(earlier), "at_ns": at_ns}


def _verify(ctx: Context, _params: CheckParams, _captured: Record, outcome: Record) -> Verification:
    """Counted again, with what came since: somebody else may have brought it back meanwhile."""
    earlier = earlier_recoveries(ctx, outcome["at_ns"])
    automatic = len(earlier) < ctx.world.recovery.most
    same = (list(earlier), automatic) == (outcome["earlier"], outcome["automatic"])
    return Verification(
        verified=same,
        enforcement=Enforcement.FULL if same else Enforcement.NONE,
        proof=_said(earlier, ctx) + ("" if same else "; that is not what was decided by"),
    )


ACTION = Action(
    id="recovery.check",
    summary="Decide whether the agent may be brought back without a person.",
    phase=Phase.RECOVER,
    reversibility=Reversibility.REVERSIBLE,
    needs=frozenset({"journal:read"}),
    scope="reads only",
    openc2="query",
    params=CheckParams,
    key=lambda params: f"{params.agent}:{params.instance}",
    plan=_plan,
    capture=lambda _ctx, _params: {},
    apply=_apply,
    verify=_verify,
    revert=revert_nothing,
    verify_reverted=nothing_reverted,
)
