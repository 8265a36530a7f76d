"""See that every other sandbox of the host is as it was launched, before a halt for one that was down is ended."""

from __future__ import annotations

from pydantic import Field

from clawback.action import Action, Context, Params, Plan, Record, Reversibility, Verification
from clawback.actions._reading import nothing_reverted, revert_nothing
from clawback.actions._recorded import began_ns, of_kind
from clawback.model import AgentState, Enforcement, Lifecycle, Phase, Source

__all__ = ["ACTION", "CheckParams"]

_SOUND = frozenset({"alive", "started"})


class CheckParams(Params):
    """`but`: the agent whose sandbox is known to be down."""

    but: str = Field("", max_length=128)


def _verify(ctx: Context, params: CheckParams, _captured: Record, _outcome: Record) -> Verification:
    """By the core's heartbeat of each sandbox since the first finding. One that has not been heard of is not sound, nor
    is one that was heard of and that the core does not list.
    """
    last: dict[str, Lifecycle] = {}
    first = min((x.time_ns for x in ctx.incident.findings), default=ctx.incident.opened_ns)
    for event in of_kind(ctx, Lifecycle, Source.SANDBOX, began_ns(ctx, 0)):
        if event.component in {"sandbox", "shim"} and event.time_ns >= first:
            last[event.instance] = event
    agents = ctx.world.core.agents()
    unlisted = {x.agent for x in last.values() if x.status in _SOUND} - {x.agent for x in agents} - {params.but}
    wrong, sound = [f"{name} was heard of and is not among the core's agents" for name in sorted(unlisted)], 0
    for info in agents:
        if info.agent == params.but or info.state is AgentState.EXITED:
            continue
        heard = last.get(info.instance)
        if info.state is AgentState.LOST:
            wrong.append(f"{info.agent} is lost")
        elif heard is None:
            wrong.append(f"{info.agent} has not been heard of since")
        elif heard.status not in _SOUND:
            wrong.append(f"{info.agent} is {heard.status}")
        else:
            sound += 1
    return Verification(
        verified=not wrong,
        enforcement=Enforcement.FULL if not wrong else Enforcement.PARTIAL if sound else Enforcement.NONE,
        proof=f"{sound} other sandboxes were read back as launched"
        + (f"; NOT: {'; '.join(wrong[:20])}" if wrong else ""),
    )


ACTION = Action(
    id="sandbox.check",
    summary="See that every other sandbox is as it was launched.",
    phase=Phase.RECOVER,
    reversibility=Reversibility.REVERSIBLE,
    needs=frozenset({"core:agents", "telemetry:read"}),
    scope="reads only",
    openc2="investigate",
    params=CheckParams,
    key=lambda params: params.but,
    plan=lambda ctx, _params: Plan(changes=(), checks=(f"{len(ctx.world.core.agents())} agents are known",)),
    capture=lambda _ctx, _params: {},
    apply=lambda _ctx, _params, _captured: {},
    verify=_verify,
    revert=revert_nothing,
    verify_reverted=nothing_reverted,
)
