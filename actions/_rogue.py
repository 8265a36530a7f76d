"""Which calls an agent must be denied before it is let go: those of the incident, and of those that it answers for."""

from __future__ import annotations

from clawback.action import Context
from clawback.model import Attempt, Incident

__all__ = ["answers_for", "rogue_calls", "rogue_calls_of"]


def rogue_calls(*incidents: Incident) -> tuple[Attempt, ...]:
    """What the findings of these want to see denied, each once, oldest finding first."""
    found = dict.fromkeys(
        (str(kind), str(target))
        for finding in sorted((one for x in incidents for one in x.findings), key=lambda x: x.time_ns)
        for kind, target in finding.attempts
    )
    return tuple(Attempt(kind=kind, target=target) for kind, target in found)


def rogue_calls_of(ctx: Context, agent: str) -> tuple[Attempt, ...]:
    """What this incident must see denied to the agent: whatever it did here, and in the incidents answered for."""
    own = (ctx.incident,) if ctx.incident.agent == agent else ()
    return rogue_calls(*own, *answers_for(ctx, agent))


def answers_for(ctx: Context, agent: str) -> tuple[Incident, ...]:
    """The agent's other incidents that handed its release over to this one (`agent.release`), straight or by way of
    others: they are through, and nobody but this one sees whether the agent is denied what it did there. Of its newest
    ones alone, as `Context.history` has them.
    """
    return tuple(x for x in ctx.history(agent) if x.id != ctx.incident.id and _comes_here(ctx, x, agent))


def _comes_here(ctx: Context, incident: Incident, agent: str) -> bool:
    seen, waiting = {incident.id}, [incident]
    while waiting:
        for heir in _heirs(waiting.pop(), agent) - seen:
            if heir == ctx.incident.id:
                return True
            seen.add(heir)
            if further := ctx.other(heir):
                waiting.append(further)
    return False


def _heirs(incident: Incident, agent: str) -> set[str]:
    return {
        str(heir)
        for receipt in incident.receipts
        if receipt.action == "agent.release" and receipt.params.get("agent") == agent
        for heir in receipt.outcome.get("held_by", ())
    }
