"""What a detector is: a pure function from one event and the agent's own memory to a finding, with its metadata.

    @detector(id="exfiltration.new-destination", reads={NetworkActivity}, severity=Severity.HIGH, …, memory=Baseline)
    def new_destination(event: NetworkActivity, seen: Baseline) -> Hit | None:

A detector has no clock and does no I/O: time is the event's. `memory` is a class without arguments, of which the
runner keeps one for each agent instance and drops the least recently used beyond its bound; whatever it holds must
itself be bounded. A detector returns a `Hit`; the runner makes the `Finding`, so that no detector can name another
agent than the event's.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from clawback.model import Event, Level, Severity

__all__ = ["Detector", "Hit", "Stateless", "detector"]


class Stateless:
    """The memory of a detector that needs none."""

    __slots__ = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Hit:
    """What a detector saw. `resource` is what was reached for; `events` are further uids beyond the present event's.

    `attempts` are `(kind, target)` of what recovery must see denied afterwards (see `clawback.model.Attempt`).
    """

    resource: str
    summary: str
    events: tuple[str, ...] = ()
    attempts: tuple[tuple[str, str], ...] = ()
    severity: Severity | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Detector:
    """A detector, declared.

    technique   what findings are deduplicated by, beside instance, resource and policy version; an ATT&CK id if any
    reflex      the highest ladder level that may be applied at once; None where the alert is for a person
    attack      MITRE ATT&CK technique ids;  atlas: MITRE ATLAS technique ids
    asi         OWASP Top 10 for Agentic Applications ids by its official names (`ASI02`)
    seed_asi    the ids that the source documents use for the same alert (`ASI-06`), which differ
    """

    id: str
    title: str
    reads: frozenset[type[Event]]
    severity: Severity
    technique: str
    reflex: Level | None
    attack: tuple[str, ...]
    atlas: tuple[str, ...]
    asi: tuple[str, ...]
    seed_asi: tuple[str, ...]
    memory: Callable[[], Any]
    examine: Callable[[Any, Any], Hit | None]
    doc: str = field(default="")


def detector(
    *,
    id: str,  # noqa: A002 - the field's word for it
    title: str,
    reads: set[type[Event]],
    severity: Severity,
    technique: str,
    reflex: Level | None = None,
    attack: tuple[str, ...] = (),
    atlas: tuple[str, ...] = (),
    asi: tuple[str, ...] = (),
    seed_asi: tuple[str, ...] = (),
    memory: Callable[[], Any] = Stateless,
) -> Callable[[Callable[[Any, Any], Hit | None]], Detector]:
    """Turn the function below into a `Detector`; the function's docstring is its description."""

    def declare(examine: Callable[[Any, Any], Hit | None]) -> Detector:
        return Detector(
            id=id,
            title=title,
            reads=frozenset(reads),
            severity=severity,
            technique=technique,
            reflex=reflex,
            attack=attack,
            atlas=atlas,
            asi=asi,
            seed_asi=seed_asi,
            memory=memory,
            examine=examine,
            doc=(examine.__doc__ or "").strip(),
        )

    return declare
