"""What actions read from recorded telemetry: bounded counts, agent-chosen words cut and without what looks secret."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import TypeVar

from clawback.action import Context
from clawback.log import redact_text
from clawback.model import Event, Source

__all__ = ["HOUR_NS", "MOST", "began_ns", "cut", "of_kind", "recorded", "top"]

HOUR_NS = 3_600 * 1_000_000_000
MOST = 50
_EVENTS = 150_000
_LONGEST = 200
_DISTINCT = 20_000  # different words that are counted apart; an agent can make up any number

E = TypeVar("E", bound=Event)


def began_ns(ctx: Context, before_ns: int = HOUR_NS) -> int:
    """From when on to read: an hour before the incident's first finding, unless told."""
    first = min((finding.time_ns for finding in ctx.incident.findings), default=ctx.incident.opened_ns)
    return max(0, first - before_ns)


def of_kind(ctx: Context, kind: type[E], source: Source, since_ns: int) -> Iterator[E]:
    """Recorded events of one kind."""
    return (event for event in recorded(ctx, source, since_ns) if isinstance(event, kind))


def recorded(
    ctx: Context, source: Source, since_ns: int, *, agent: str = "", instance: str = "", policy: str = ""
) -> tuple[Event, ...]:
    """One stream's events, of this agent, instance and policy where they are named; the newest 150,000."""
    telemetry = ctx.world.telemetry
    return telemetry.events(
        sources=(source,), agent=agent, instance=instance, policy=policy, since_ns=since_ns, most=_EVENTS
    ).events


def cut(text: str) -> str:
    """Fit for the journal."""
    return redact_text(text)[:_LONGEST]


def top(words: Iterable[str]) -> dict[str, int]:
    """The most frequent of them, each cut, with their counts."""
    counts: Counter[str] = Counter()
    for word in words:
        key = cut(word)
        if key in counts or len(counts) < _DISTINCT:
            counts[key] += 1
        else:
            counts["(others)"] += 1
    return dict(counts.most_common(MOST))
