"""Run every detector over every event; a finding comes out once, and no detector can stop another.

All state is bounded: memories are kept for the agent instances seen last, keys of findings for the newest ones, and one
detector reports so many resources of one instance and no more, for an agent can make resources up without end.
"""

from __future__ import annotations

import hashlib
from collections import Counter, OrderedDict
from collections.abc import Iterable
from typing import Any

import structlog

from clawback.detector import Detector, Hit
from clawback.model import Event, Finding

__all__ = ["Engine"]

RESOURCE_LIMIT = 512  # characters
SUMMARY_LIMIT = 1024
EVENTS_LIMIT = 64
PER_INSTANCE = 32  # different findings of one detector about one instance

_log = structlog.get_logger()


class _Slot:
    """What is kept for one agent instance: each detector's memory, and how much it has reported."""

    __slots__ = ("memories", "reported")

    def __init__(self, detectors: int) -> None:
        self.memories: list[Any] = [None] * detectors
        self.reported = [0] * detectors


class Engine:
    """Detectors over events. `examined`, `found`, `suppressed` and `errors` (by detector) count what happened."""

    def __init__(self, detectors: Iterable[Detector], *, instances: int = 4096, remembered: int = 65_536) -> None:
        self.detectors = tuple(sorted(detectors, key=lambda item: item.id))
        self.examined = 0
        self.found: Counter[str] = Counter()
        self.suppressed: Counter[str] = Counter()
        self.errors: Counter[str] = Counter()
        self._instances = instances
        self._remembered = remembered
        self._slots: OrderedDict[tuple[str, str], _Slot] = OrderedDict()
        self._keys: OrderedDict[tuple[str, str, str, str, int], None] = OrderedDict()
        self._readers: dict[type[Event], tuple[tuple[int, Detector], ...]] = {}

    def examine(self, event: Event) -> tuple[Finding, ...]:
        """The findings that this event completes, most severe first; none that came out before."""
        self.examined += 1
        subject = event.subject
        if not subject[0] or event.withheld:
            return ()  # about nothing that an incident could be about; or what a stage of a release holds back
        kind = type(event)
        readers = self._readers.get(kind)
        if readers is None:
            readers = tuple((at, item) for at, item in enumerate(self.detectors) if kind in item.reads)
            self._readers[kind] = readers
        if not readers:
            return ()
        slot = self._slot(subject)
        found: list[Finding] = []
        for at, detector in readers:
            try:
                memory = slot.memories[at]
                if memory is None:
                    memory = slot.memories[at] = detector.memory()
                hit = detector.examine(event, memory)
                if hit is not None and (finding := self._report(at, detector, event, hit, slot)) is not None:
                    found.append(finding)
            except Exception:
                self._failed(at, detector, event, slot)
        if len(found) > 1:
            found.sort(key=lambda item: (-(item.reflex or 0), -item.severity))
        return tuple(found)

    def forget(self, finding: Finding) -> None:
        """Let this finding come out again."""
        self._keys.pop((finding.agent, *finding.key), None)

    def _slot(self, owner: tuple[str, str]) -> _Slot:
        slot = self._slots.get(owner)
        if slot is None:
            slot = self._slots[owner] = _Slot(len(self.detectors))
            if len(self._slots) > self._instances:
                self._slots.popitem(last=False)
        else:
            self._slots.move_to_end(owner)
        return slot

    def _report(self, at: int, detector: Detector, event: Event, hit: Hit, slot: _Slot) -> Finding | None:
        agent, instance = event.subject
        finding = Finding(
            detector=detector.id,
            agent=agent,
            instance=instance,
            severity=detector.severity if hit.severity is None else hit.severity,
            technique=detector.technique,
            resource=_bounded_resource(hit.resource),
            policy=event.policy,
            policy_version=event.policy_version,
            title=detector.title,
            summary=hit.summary[:SUMMARY_LIMIT],
            time_ns=event.time_ns,
            events=(*hit.events[: EVENTS_LIMIT - 1], event.uid),
            reflex=detector.reflex if event.agent else None,
            attack=detector.attack,
            atlas=detector.atlas,
            asi=detector.asi,
            seed_asi=detector.seed_asi,
            attempts=hit.attempts,
        )
        key = (finding.agent, *finding.key)
        if key in self._keys:
            self._keys.move_to_end(key)
            return None
        if event.agent and slot.reported[at] >= PER_INSTANCE:  # no agent names what a component's findings are about
            self.suppressed[detector.id] += 1
            return None
        slot.reported[at] += 1
        self._keys[key] = None
        if len(self._keys) > self._remembered:
            self._keys.popitem(last=False)
        self.found[detector.id] += 1
        return finding

    def _failed(self, at: int, detector: Detector, event: Event, slot: _Slot) -> None:
        # A memory that an error left half changed may raise for ever; a fresh one costs a baseline, not the detector.
        slot.memories[at] = None
        self.errors[detector.id] += 1
        if self.errors[detector.id] == 1 or self.errors[detector.id] % 1000 == 0:
            _log.exception("detector failed", detector=detector.id, event_uid=event.uid, times=self.errors[detector.id])


def _bounded_resource(resource: str) -> str:
    if len(resource) <= RESOURCE_LIMIT:
        return resource
    # The digest keeps two long resources apart that begin alike.
    digest = hashlib.sha256(resource.encode("utf-8", "backslashreplace")).hexdigest()[:16]
    return f"{resource[: RESOURCE_LIMIT - 18]}…{digest}"
