"""An instance that is over because this incident's own recovery replaced it: nothing of it is left to be held."""

from __future__ import annotations

from clawback.action import Context
from clawback.errors import NotFound
from clawback.model import AgentInfo, Enforcement, Level, Phase, ReceiptState

__all__ = ["replaced"]


def replaced(ctx: Context, info: AgentInfo, instance: str) -> str:
    """How that is known, in words; empty where it is not so, or not known.

    Whatever somebody else started in its place is as suspect as it was, and an order for it is not done by its end. So
    each start from `instance` to the one that is there was verified in this incident, and the core sees that no process
    of `instance` is left.
    """
    if not instance or instance == info.instance or not _by_this_incident(ctx, info, instance):
        return ""
    try:
        left = ctx.world.core.probe(info.agent, Level.STOP, instance=instance)
    except NotFound:
        return ""
    if left.enforcement is not Enforcement.FULL:
        return ""
    return f"instance {instance} is over, replaced by this incident's recovery, now {info.instance}: {left.observed}"


def _by_this_incident(ctx: Context, info: AgentInfo, instance: str) -> bool:
    starts: dict[str, str] = {
        str(before): str(after)
        for receipt in ctx.incident.receipts
        if receipt.phase is Phase.RECOVER
        and receipt.state is ReceiptState.VERIFIED
        and receipt.params.get("agent") == info.agent
        and (before := receipt.captured.get("instance")) != (after := receipt.outcome.get("instance"))
    }
    for _ in starts:
        instance = starts.get(instance, instance)
    return instance == info.instance
