"""What actions read from recorded telemetry: bounded counts, agent-chosen words cut and without what looks secret."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import TypeVar

from clawback.action import Context
from clawback.log import redact_text
from clawback.model import Event, Source
from clawback.world import Sighted

__all__ = [
    "HOUR_NS",
    "MOST",
    "SETTLED_NS",
    "amiss",
    "began_ns",
    "cut",
    "of_kind",
    "read",
    "recorded",
    "top",
    "until_now",
]

HOUR_NS = 3_600 * 1_000_000_000
MOST = 50
SETTLED_NS = 10 * 1_000_000_000
"""What the kernel tells, and what another product tells, is written down a little after it happened."""
_EVENTS = 150_000
_LONGEST = 200
_DISTINCT = 20_000  # different words that are counted apart; an agent can make up any number

E = TypeVar("E", bound=Event)


def began_ns(ctx: Context, before_ns: int = HOUR_NS) -> int:
    """From when on to read: an hour before the incident's first finding, unless told."""
    first = min((finding.time_ns for finding in ctx.incident.findings), default=ctx.incident.opened_ns)
    return max(0, first - before_ns)


def of_kind(ctx: Context, kind: type[E], source: Source, since_ns: int) -> Iterator[E]:
    """Recorded events of one kind, up to now: a clock that was ahead stamps what would outlast everything after it."""
    found = read(ctx, source, since_ns, until_ns=until_now()).events
    return (event for event in found if isinstance(event, kind))


def until_now() -> int:
    """The end of a span that has in it what has just been written."""
    return time.time_ns() + 1


def read(
    ctx: Context,
    source: Source,
    since_ns: int,
    *,
    until_ns: int = 0,
    agent: str = "",
    instance: str = "",
    policy: str = "",
) -> Sighted:
    """The same as `recorded`, before `until_ns` where it is given, and whether it is all that the span has."""
    return ctx.world.telemetry.events(
        sources=(source,),
        agent=agent,
        instance=instance,
        policy=policy,
        since_ns=since_ns,
        until_ns=until_ns,
        most=_EVENTS,
    )


def amiss(then: int, again: Sequence[Event], until_ns: int) -> str:
    """How a span that was read once, `then` as so many events, reads `again`; empty where it is the same but for what
    may have been written late.
    """
    if len(again) < then:
        return f"{then - len(again)} of the events that it was drawn from are not in the telemetry any more"
    settled = sum(event.time_ns < until_ns - SETTLED_NS for event in again)
    return f"{settled - then} events were not read when it was drawn" if settled > then else ""


def recorded(
    ctx: Context, source: Source, since_ns: int, *, agent: str = "", instance: str = "", policy: str = ""
) -> tuple[Event, ...]:
    """One stream's events, of this agent, instance and policy where they are named; the newest 150,000."""
    return read(ctx, source, since_ns, agent=agent, instance=instance, policy=policy).events


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
