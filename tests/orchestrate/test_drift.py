"""The look for drift stands back while a response works, and comes all the same where one works on and on."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest

from clawback.config import DriftSettings
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
