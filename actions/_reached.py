"""What an agent reached for, from the findings and the telemetry: tools, destinations, data, and when."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from clawback.action import Context
from clawback.errors import Unreachable
from clawback.log import redact_text
from clawback.model import Event, FileActivity, HttpActivity, NetworkActivity, ProcessActivity, ReceiptState

__all__ = ["bounded", "calls_of", "reached", "window"]

_MOST = 50
_LONGEST = 300
_MARGIN_NS = 10 * 60 * 1_000_000_000
_CONTAINING = ("agent.freeze", "agent.isolate")

Call = tuple[str, str]


def bounded(values: Iterable[Any]) -> list[str]:
    """Agent-chosen strings as the journal may keep them: each once, cut, without what looks like a secret."""
    return list(dict.fromkeys(redact_text(str(value))[:_LONGEST] for value in values))[:_MOST]


def calls_of(ctx: Context) -> list[Call]:
    """(kind, target) of what the findings rest on."""
    return [(kind, target) for finding in ctx.incident.findings for kind, target in finding.attempts]


def reached(ctx: Context, agent: str, instance: str) -> dict[str, Any]:
    """Tools, destinations and data sets: of the findings first, then of the telemetry from shortly before the first.

    `sources` says for each where it was read, and what could not be.
    """
    calls = calls_of(ctx)
    seen, source = _telemetry(ctx, agent, instance)
    return {
        "tool_calls": bounded(f"{kind} {target}" for kind, target in calls),
        "tools": bounded(_tools(seen)),
        "destinations": bounded((*_destinations(calls), *_hosts(seen))),
        "data": bounded((*_data(calls), *_sets(seen))),
        "bytes_out": sum(_bytes_out(seen).values()),
        "sources": {"calls": "findings", "tools": source, "destinations": f"findings; {source}", "data": source},
    }


def window(ctx: Context) -> dict[str, int]:
    """From the first anomalous event to the last, and when the agent was first seen contained; 0 for not yet."""
    times = [finding.time_ns for finding in ctx.incident.findings]
    contained = [
        receipt.verified_ns
        for receipt in ctx.incident.receipts
        if receipt.action in _CONTAINING
        and receipt.state is ReceiptState.VERIFIED
        and receipt.params.get("agent") == ctx.incident.agent
    ]
    return {
        "first_ns": min(times, default=0),
        "last_ns": max(times, default=0),
        "contained_ns": max(contained, default=0) if len(contained) >= len(_CONTAINING) else 0,
    }


def _telemetry(ctx: Context, agent: str, instance: str) -> tuple[tuple[Event, ...], str]:
    first = window(ctx)["first_ns"]
    try:
        seen = ctx.world.telemetry.events(agent=agent, instance=instance, since_ns=max(0, first - _MARGIN_NS))
    except Unreachable as error:
        return (), f"no telemetry: {error.message}"
    return seen.events, "telemetry" if seen.complete else "telemetry, not all of it: more than is read at once"


def _tools(events: Iterable[Event]) -> Iterable[str]:
    """Programs that it ran, and what requests call by name where the gateway looked into them."""
    for event in events:
        if isinstance(event, ProcessActivity) and event.exe:
            yield f"program {event.exe}"
        elif isinstance(event, HttpActivity):
            yield from (f"{call} at {event.host}:{event.port}" for call in getattr(event, "calls", ()))


def _destinations(calls: Iterable[Call]) -> list[str]:
    """Whom it spoke to, or tried to: `HOST:PORT`, as in the call."""
    return [
        target.partition("://")[2].partition("/")[0] if kind == "http" else target
        for kind, target in calls
        if kind in {"http", "connect"}
    ]


def _hosts(events: Iterable[Event]) -> list[str]:
    return [f"{event.host}:{event.port}" for event in events if isinstance(event, (HttpActivity, NetworkActivity))]


def _data(calls: Iterable[Call]) -> list[str]:
    """What it asked for by name: files, and what lies behind a URL."""
    return [
        target.partition(" ")[2].partition("?")[0] if kind == "http" else target
        for kind, target in calls
        if kind in {"http", "open"}
    ]


def _sets(events: Iterable[Event]) -> Iterable[str]:
    for event in events:
        if isinstance(event, FileActivity):
            yield event.path
        elif isinstance(event, HttpActivity) and event.path:
            yield f"{event.host}:{event.port}{event.path.partition('?')[0]}"


def _bytes_out(events: Iterable[Event]) -> dict[str, int]:
    """By connection: each event has its connection's total so far."""
    most: dict[str, int] = {}
    for event in events:
        if isinstance(event, (HttpActivity, NetworkActivity)) and event.bytes_out:
            name = event.connection or event.uid
            most[name] = max(most.get(name, 0), event.bytes_out)
    return most
