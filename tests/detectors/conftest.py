"""Short ways to write events, and to run one detector over them the way that watch does."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from importlib import import_module
from typing import Any

import pytest

from clawback.detector import Detector
from clawback.model import Disposition, Event, Finding, Source
from clawback.model.ocsf import encode, parse_line
from clawback.watch.engine import Engine

START_NS = 1_760_000_000_000_000_000
STREAMS = {"HttpActivity": Source.POLICY, "NetworkActivity": Source.POLICY, "RouteActivity": Source.ROUTING}


class Script:
    """Events of one agent instance, numbered, a second apart unless told."""

    def __init__(self) -> None:
        self.sequence = 0
        self.at_ns = START_NS

    def __call__(self, kind: type[Event], *, after: float = 1.0, blocked: bool = False, **fields: Any) -> Event:
        self.sequence += 1
        self.at_ns += round(after * 1e9)
        known: dict[str, Any] = {
            "time_ns": self.at_ns,
            "writer": "test",
            "sequence": self.sequence,
            "source": STREAMS.get(kind.__name__, Source.SANDBOX),
            "agent": "support",
            "instance": "support-1",
            "disposition": Disposition.BLOCKED if blocked else Disposition.ALLOWED,
            "policy": "support",
            "policy_version": 1,
        }
        return kind(**(known | fields))


@pytest.fixture
def event() -> Script:
    return Script()


@pytest.fixture
def run() -> Callable[[str, Iterable[Event]], list[Finding]]:
    """Run the detector of one file over events, each having gone through its OCSF line."""

    def over(name: str, events: Iterable[Event]) -> list[Finding]:
        detector: Detector = import_module(f"clawback.detectors.{name}").DETECTOR
        engine = Engine([detector])
        found = [item for one in events for item in engine.examine(parse_line(encode(one)[:-1], one.source))]
        assert not engine.errors
        assert [replace(item, detector=detector.id, reflex=detector.reflex) for item in found] == found
        return found

    return over
