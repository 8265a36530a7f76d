"""The look for drift stands back while a response works, and comes all the same where one works on and on."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, cast

import pytest

from clawback.config import DriftSettings
from clawback.errors import Unreachable
from clawback.journal import Journal
from clawback.model import Enforcement, Incident, Phase
from clawback.orchestrate import drift as room
from clawback.orchestrate.drift import Drift


class Ledger:
    """Two incidents that stand, each without a receipt."""

    def __init__(self) -> None:
        self.read: list[str] = []

    def standing(self, _since_ns: int) -> tuple[str, ...]:
        return ("INC-1", "INC-2")

    def incident(self, name: str) -> Any:
        self.read.append(name)
        return type("Incident", (), {"receipts": ()})


def drift(journal: Ledger, busy: Any) -> Drift:
    settings = DriftSettings(interval_seconds=1)
    return Drift(cast("Any", journal), settings, cast("Any", None), cast("Any", None), busy=busy)


def test_no_incident_is_looked_at_while_a_response_works() -> None:
    journal = Ledger()
    asked = iter((True, True, False, True, False))
    seen = []

    def busy() -> bool:
        seen.append(tuple(journal.read))
        return next(asked)

    asyncio.run(drift(journal, busy).look())
    assert seen == [(), (), (), ("INC-1",), ("INC-1",)]
    assert journal.read == ["INC-1", "INC-2"]


def test_where_one_always_works_it_looks_after_its_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "PATIENCE", 0.1)
    journal = Ledger()
    asyncio.run(drift(journal, lambda: True).look())
    assert journal.read == ["INC-1", "INC-2"]


def test_an_incident_that_somebody_is_about_to_take_is_not_locked_for_a_look(
    journal: Journal, opened: Callable[[int], Incident]
) -> None:
    incident = opened(0)
    receipt = journal.intend(incident, "a:1", "agent.freeze", Phase.CONTAIN, {}, "watch", captured={})
    journal.held(receipt, {}, "seen", Enforcement.FULL)
    looked: list[str] = []

    def response_to(name: str) -> Any:
        looked.append(name)
        raise Unreachable("the core does not answer")

    look = Drift(journal, DriftSettings(interval_seconds=1), response_to, cast("Any", None)).look
    assert asyncio.run(look()) == ()
    assert looked == []
    turn = journal.turn(incident.id)
    assert turn is not None
    journal.rest(turn, seconds=None, tries=0, pending=1)
    assert asyncio.run(look()) == ()
    assert looked == [incident.id]
