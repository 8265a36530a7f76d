"""Decide whether the response may contain the agent by itself, or must wait for a person.

It may if a finding asks for it (its detector names a reflex), or if somebody holds the agent already. An alert alone
permits neither stopping an agent nor rotating its credentials: then the step stays unverified, the incident stays open,
and `clawback contain` followed by `clawback resume` is the person's yes.
"""

from __future__ import annotations

from pydantic import Field

from clawback.action import Action, Context, Params, Plan, Record, Reversibility, Verification
from clawback.actions._ladder import hold_levels
from clawback.actions._reading import nothing_reverted, revert_nothing
from clawback.model import Enforcement, Phase

__all__ = ["ACTION", "TriageParams"]

_CONTAINING = ("agent.freeze", "agent.isolate")


class TriageParams(Params):
    """The agent and the instance that the findings are about."""

    agent: str = Field(min_length=1, max_length=128)
    instance: str = Field("", max_length=128)


def _grounds(ctx: Context, params: TriageParams) -> str:
    incident = ctx.incident
    withheld = any(line.what == "reflex withheld" for line in incident.timeline)
    asking = max((x for x in incident.findings if x.reflex is not None), key=lambda x: x.severity, default=None)
    if any(x.action in _CONTAINING and x.applied_ns for x in incident.receipts):
        return "the agent is contained by this incident already"
    if asking is not None and not withheld:
        word = asking.reflex.word if asking.reflex else ""
        return f"{asking.detector}, severity {asking.severity.name.lower()}, asks for {word}"
    info = ctx.world.core.agent(params.agent)
    if info.hold and params.instance in ("", info.instance):
        return f"held at {', '.join(x.word for x in hold_levels(info))} by {info.hold.by}: {info.hold.reason}"
    return ""


def _plan(ctx: Context, params: TriageParams) -> Plan:
    return Plan(changes=(), checks=(_grounds(ctx, params) or "nothing permits containment without a person",))


def _verify(ctx: Context, params: TriageParams, _captured: Record, _outcome: Record) -> Verification:
    grounds = _grounds(ctx, params)
    return Verification(
        verified=bool(grounds),
        enforcement=Enforcement.FULL if grounds else Enforcement.NONE,
        proof=grounds
        or f"no finding asks for containment and nobody has ordered it: `clawback contain {params.agent}` does, "
        "`clawback resume` then goes on",
    )


ACTION = Action(
    id="incident.triage",
    summary="Decide whether containment needs a person.",
    phase=Phase.IDENTIFY,
    reversibility=Reversibility.REVERSIBLE,
    needs=frozenset({"core:agent"}),
    scope="reads only",
    openc2="investigate",
    params=TriageParams,
    key=lambda params: f"{params.agent}:{params.instance}",
    plan=_plan,
    capture=lambda _ctx, _params: {},
    apply=lambda _ctx, _params, _captured: {},
    verify=_verify,
    revert=revert_nothing,
    verify_reverted=nothing_reverted,
)
