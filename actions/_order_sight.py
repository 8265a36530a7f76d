"""What is seen of an order: from inside each agent that it is for, or, where nothing can be tried, by the gateway."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from clawback.action import Context
from clawback.actions._order_probes import Probe
from clawback.errors import ClawbackError, NotFound, Unreachable
from clawback.model import AgentInfo, AgentState, AttemptResult, EgressOrder, Scope, ScopeKind, Subject
from clawback.reports.escape import plain

__all__ = ["Sight", "covered", "look", "subject_of", "undecided"]


@dataclass(slots=True)
class Sight:
    """Agents by what was seen of them: in words, for a proof.

    seen      refused from inside, in this order's name
    told      by the gateway's decision alone, and why
    against   not refused, or not to be told
    """

    seen: list[str] = field(default_factory=list)
    told: list[str] = field(default_factory=list)
    against: list[str] = field(default_factory=list)


def covered(ctx: Context, scope: Scope) -> tuple[AgentInfo, ...]:
    """The agents of this host that are meant, running or not."""
    return tuple(info for info in ctx.world.core.agents() if scope.covers(subject_of(info)))


def subject_of(info: AgentInfo) -> Subject:
    """An agent as orders see it."""
    return Subject(agent=info.agent, tenant=info.tenant, team=info.team, tags=tuple(info.tags))


def look(ctx: Context, order: EgressOrder, probes: Sequence[Probe]) -> Sight:
    """Every agent that is meant; where there is none, whoever would be."""
    sight = Sight()
    for info in covered(ctx, order.scope):
        _look_at(ctx, order, probes, info, sight)
    if not (sight.seen or sight.told or sight.against):
        if why := _undecided(ctx, order, probes, "", _somebody(order.scope)):
            sight.against.append(why)
        else:
            sight.told.append("no such agent on this host; one that is started will be refused")
    return sight


def undecided(ctx: Context, order: EgressOrder, probes: Sequence[Probe]) -> list[str]:
    """For whom of those that are meant the gateway decides otherwise, and why. Nothing is tried."""
    hit = covered(ctx, order.scope)
    asked = [(info.policy, subject_of(info)) for info in hit] or [("", _somebody(order.scope))]
    said = ((subject.agent, _undecided(ctx, order, probes, policy, subject)) for policy, subject in asked)
    return [f"{agent}: {why}" for agent, why in said if why]


def _somebody(scope: Scope) -> Subject:
    """Who would be meant, if there were anybody."""
    value, kind = scope.value, scope.kind
    return Subject(
        agent=value if kind is ScopeKind.AGENT else "clawback-check",
        tenant=value if kind is ScopeKind.TENANT else "",
        team=value if kind is ScopeKind.TEAM else "",
        tags=(value,) if kind is ScopeKind.TAG else (),
    )


def _look_at(ctx: Context, order: EgressOrder, probes: Sequence[Probe], info: AgentInfo, sight: Sight) -> None:
    # Before anything is tried: what the gateway would let through is not to be tried for real.
    if why := _undecided(ctx, order, probes, info.policy, subject_of(info)):
        sight.against.append(f"{info.agent}: {why}")
        return
    if why := _not_to_be_tried(info):
        sight.told.append(f"{info.agent} ({why})")
        return
    try:
        results = ctx.world.core.attempt(info.agent, [probe.attempt for probe in probes])
    except Unreachable:
        raise
    except ClawbackError as error:
        why = _not_to_be_tried(_now(ctx, info))
        if why:
            sight.told.append(f"{info.agent} ({why})")
        else:
            sight.against.append(f"{info.agent}: could not be tried: {plain(error.message, 200)}")
        return
    unnamed = ""
    for probe, result in zip(probes, results, strict=True):
        said = f"{probe.attempt.kind} {plain(probe.attempt.target, 100)} → {plain(result.detail, 200)}"
        if _names(order, probe, result):
            continue
        if not result.denied:
            sight.against.append(f"{info.agent}: {said}")
            return
        unnamed = unnamed or f"refused, and not in this order's name: {said}"
    if unnamed:
        sight.told.append(f"{info.agent} ({unnamed})")
    else:
        sight.seen.append(f"{info.agent}: {said}")


def _undecided(ctx: Context, order: EgressOrder, probes: Sequence[Probe], policy: str, subject: Subject) -> str:
    """Why the gateway's decision is not this order's; empty where it is, for each probe."""
    for probe in probes:
        said = ctx.world.orders.decide(policy or "none", probe.attempt, subject=subject)
        if said.allowed or order.id not in said.orders:
            what = f"{probe.attempt.kind} {plain(probe.attempt.target, 100)}"
            by = f"denies it by {said.rule or 'default'}, not by this order"
            return f"{what}: the gateway {'allows it' if said.allowed else by}"
    return ""


def _names(order: EgressOrder, probe: Probe, result: AttemptResult) -> bool:
    """Whether the gateway's answer was this order's doing: refused, or kept waiting where that is what it does."""
    named = order.rule in result.detail.split()
    return named and (result.denied or (probe.held and result.detail.startswith("HTTP 100")))


def _not_to_be_tried(info: AgentInfo | None) -> str:
    if info is None:
        return "gone"
    if info.state is not AgentState.RUNNING:
        return info.state.value
    # Under a hold its way out is shut for another reason, and a refusal would be that one's.
    return f"held at {'+'.join(level.word for level in info.hold.levels)}" if info.hold else ""


def _now(ctx: Context, info: AgentInfo) -> AgentInfo | None:
    try:
        return ctx.world.core.agent(info.agent)
    except NotFound:
        return None
