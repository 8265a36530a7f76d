"""Have a person say that an agent which was recovered too often already may be brought back once more.

The step changes nothing. It waits for the approval, and everything that brings the agent back depends on it.
"""

from __future__ import annotations

import time

from pydantic import Field

from clawback.action import Action, Context, Params, Plan, Record, Reversibility, Verification
from clawback.actions._reading import nothing_reverted, revert_nothing
from clawback.actions.recovery_check import earlier_recoveries
from clawback.model import Enforcement, Phase

__all__ = ["ACTION", "PermitParams"]


class PermitParams(Params):
    """The agent, and the instance that this incident is about."""

    agent: str = Field(min_length=1, max_length=128)
    instance: str = Field("", max_length=128)


def _plan(ctx: Context, params: PermitParams) -> Plan:
    earlier = earlier_recoveries(ctx, time.time_ns())
    went = ", ".join(dict.fromkeys(x.title for x in ctx.incident.findings)) or "nothing that is on record"
    return Plan(
        changes=(f"- {params.agent}: stays stopped", f"+ {params.agent}: is brought back once more, in stages"),
        checks=(f"recovered before in {', '.join(earlier) or 'no other incident'}", f"now it did: {went[:400]}"),
    )


def _verify(ctx: Context, params: PermitParams, _captured: Record, _outcome: Record) -> Verification:
    return Verification(
        verified=True,
        enforcement=Enforcement.FULL,
        proof=f"nothing kept this step from being made any more; {ctx.actor} goes on with {params.agent}",
    )


ACTION = Action(
    id="recovery.permit",
    summary="Have a person permit one more recovery of an agent that went rogue again.",
    phase=Phase.RECOVER,
    reversibility=Reversibility.REVERSIBLE,
    needs=frozenset({"journal:read"}),
    scope="changes nothing; what depends on it brings one agent back",
    openc2="allow",
    consent=True,
    params=PermitParams,
    key=lambda params: f"{params.agent}:{params.instance}",
    plan=_plan,
    capture=lambda _ctx, _params: {},
    apply=lambda _ctx, _params, _captured: {},
    verify=_verify,
    revert=revert_nothing,
    verify_reverted=nothing_reverted,
)
