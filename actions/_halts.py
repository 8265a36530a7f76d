"""Halts as one incident orders them: found again by the incident and what they select, never by a remembered id."""

from __future__ import annotations

from contextlib import suppress

from clawback.action import Context, Record, Verification
from clawback.actions._ladder import gone, seen
from clawback.errors import ClawbackError, NotFound, Refused
from clawback.model import AgentInfo, Enforcement, Halt, Level, Order, Selector, SelectorKind

__all__ = ["as_record", "free_again", "from_record", "matches", "standing", "stopped", "strike"]


def as_record(selector: Selector | None) -> dict[str, str] | None:
    """As the journal keeps it."""
    return {"kind": selector.kind.value, "value": selector.value} if selector else None


def from_record(record: Record | None) -> Selector | None:
    """What was kept."""
    return Selector(kind=SelectorKind(record["kind"]), value=str(record["value"])) if record else None


def standing(ctx: Context, selector: Selector | None = None) -> tuple[Halt, ...]:
    """Halts that were ordered for the present incident: of these agents, or all of them."""
    ours = (x for x in ctx.world.core.halts() if x.order.incident == ctx.incident.id)
    return tuple(x for x in ours if selector is None or x.selector == selector)


def matches(ctx: Context, selector: Selector) -> tuple[AgentInfo, ...]:
    """The agents of this host that it means now."""
    everyone = ctx.world.core.agents()
    match selector.kind:
        case SelectorKind.ALL:
            return everyone
        case SelectorKind.TENANT:
            return tuple(x for x in everyone if x.tenant == selector.value)
        case SelectorKind.TEAM:
            return tuple(x for x in everyone if x.team == selector.value)
        case SelectorKind.TAG:
            return tuple(x for x in everyone if selector.value in x.tags)
        case SelectorKind.TREE:
            return _tree(everyone, selector.value)


def strike(ctx: Context, selector: Selector, names: list[str], reason: str) -> Record:
    """Halt them, unless a halt of theirs stands and each is frozen: one that got loose under it is struck anew."""
    there = standing(ctx, selector)
    if there and stopped(ctx, [selector], names, "").verified:
        return {}
    core = ctx.world.core
    report = core.halt(selector, Level.FREEZE, reason=reason[:500], by=ctx.actor, incident=ctx.incident.id)
    for one in there:  # only now: at no time are they held by none
        with suppress(NotFound, Refused):  # somebody was first, or another may: both stand, and one is enough
            core.lift(one.id, reason=f"{report.halt.id} stands instead", by=ctx.actor)
    return {"halt": report.halt.id, "agents": len(report.agents), "struck_ms": round(report.struck_ms, 3)}


def _tree(everyone: tuple[AgentInfo, ...], top: str) -> tuple[AgentInfo, ...]:
    names = {top}
    while more := {x.agent for x in everyone if x.parent in names} - names:
        names |= more
    return tuple(x for x in everyone if x.agent in names)


def stopped(ctx: Context, selectors: list[Selector], names: list[str], what: str) -> Verification:
    """Each agent that they mean now, and each of these, read back: no process of it runs. One that cannot be read is
    not stopped, nor is one that the core does not list any more: it never forgets one.
    """
    listed = {x.agent: x for x in ctx.world.core.agents()}
    agents = {x.agent: x for selector in selectors for x in matches(ctx, selector)}
    agents |= {name: listed[name] for name in names if name in listed}
    running, dead = [f"{name}: the core does not list it" for name in names if name not in agents], 0
    for info in agents.values():
        try:
            if gone(ctx, info):
                dead += 1
                continue
            frozen = ctx.world.core.probe(info.agent, Level.FREEZE)
            if not seen(frozen, Enforcement.FULL):
                running.append(f"{info.agent}: {frozen.observed or 'nothing observed'}")
        except ClawbackError as error:
            running.append(f"{info.agent}: {error.message}")
    unlisted = sum(name not in agents for name in names)
    still = len(agents) + unlisted - dead - len(running)
    enforcement = Enforcement.FULL if not running else Enforcement.PARTIAL if still or dead else Enforcement.NONE
    return Verification(
        verified=not running,
        enforcement=enforcement,
        proof=f"{what}: {still} agents read back as frozen, {dead} have no process"
        + (f"; NOT frozen: {'; '.join(running[:20])}" if running else ""),
    )


def free_again(ctx: Context, selector: Selector | None, names: list[str]) -> Verification:
    """No halt of the present incident stands, in the list of halts or in what holds an agent, and whom nothing else
    holds runs again.
    """
    ours = standing(ctx)
    if left := [x for x in ours if selector is None or x.selector == selector]:
        return Verification(verified=False, enforcement=Enforcement.FULL, proof=f"{left[0].id} still stands")
    agents = ctx.world.core.agents()
    lifted = sorted({order.halt for info in agents for order in _by_halts(ctx, info)} - {x.id for x in ours})
    if lifted:
        return Verification(verified=False, enforcement=Enforcement.FULL, proof=f"{lifted[0]} still holds agents")
    stuck = sorted(f"{name} (the core does not list it)" for name in set(names) - {x.agent for x in agents})
    held, free = 0, 0
    for info in agents:
        if info.agent not in names:
            continue
        if info.hold is not None or gone(ctx, info):
            held += 1
        elif ctx.world.core.probe(info.agent, Level.FREEZE).enforcement is Enforcement.NONE:
            free += 1
        else:
            stuck.append(info.agent)
    return Verification(
        verified=not stuck,
        enforcement=Enforcement.PARTIAL if stuck else Enforcement.NONE,
        proof=f"no halt of this incident stands; {free} agents run again, {held} are held by others or have ended"
        + (f"; still frozen: {', '.join(stuck[:20])}" if stuck else ""),
    )


def _by_halts(ctx: Context, info: AgentInfo) -> tuple[Order, ...]:
    orders = info.hold.orders if info.hold else ()
    return tuple(order for order in orders if order.halt and order.incident == ctx.incident.id)
