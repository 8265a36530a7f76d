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
from clawback.reports.escape import plain

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
        checks=(f"recovered before in {', '.join(earlier) or 'no other incident'}", f"now it did: {plain(went, 400)}"),
    )


def _apply(ctx: Context, _params: PermitParams, _captured: Record) -> Record:
    at_ns = time.time_ns()
    return {"earlier": list(earlier_recoveries(ctx, at_ns)), "at_ns": at_ns}


def _verify(ctx: Context, params: PermitParams, _captured: Record, outcome: Record) -> Verification:
    """One recovery is permitted: another incident's, made meanwhile, may not pass for it."""
    earlier = list(earlier_recoveries(ctx, outcome["at_ns"]))
    same = earlier == outcome["earlier"]
    after = f"after {len(earlier)} earlier ones ({', '.join(earlier[:5])})" if earlier else "with none on record before"
    return Verification(
        verified=same,
        enforcement=Enforcement.FULL if same else Enforcement.NONE,
        proof=f"nothing kept this step from being made any more; {plain(ctx.actor, 80)} goes on with {params.agent}, "
        f"{after}"
        if same
        else f"the recoveries on record are not those of a moment ago: {', '.join(earlier[:5]) or 'none'}",
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
    apply=_apply,
    verify=_verify,
    revert=revert_nothing,
    verify_reverted=nothing_reverted,
)
