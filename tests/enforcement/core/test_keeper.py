"""The keeper's looks wait while agents are being quarantined, and not for ever."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from clawback.enforcement.core import keeper as room
from clawback.enforcement.core.keeper import Keeper


class Orders:
    def __init__(self) -> None:
        self.busy = False
        self.looked: list[str] = []

    def keep(self, agent: str) -> bool:
        self.looked.append(agent)
        return True


@pytest.fixture
def orders() -> Orders:
    return Orders()


@pytest.fixture
def keeper(orders: Orders) -> Keeper:
    """Of two agents, both held and due at once."""
    entries = {"a": SimpleNamespace(orders=1), "b": SimpleNamespace(orders=1)}
    parts = SimpleNamespace(entries=entries, held=lambda _agent: True)
    return Keeper(cast("Any", parts), cast("Any", orders), cast("Any", None), seconds=0.0)


def test_those_that_are_due_are_looked_at(keeper: Keeper, orders: Orders) -> None:
    keeper._turn()
    assert orders.looked == ["a", "b"]


def test_none_is_looked_at_while_agents_are_quarantined(keeper: Keeper, orders: Orders) -> None:
    orders.busy = True
    keeper._turn()
    assert orders.looked == []
    orders.busy = False
    keeper._turn()
    assert orders.looked == ["a", "b"]


def test_one_that_waited_long_enough_is_looked_at_all_the_same(
    keeper: Keeper, orders: Orders, monkeypatch: pytest.MonkeyPatch
) -> None:
    orders.busy = True
    keeper._turn()
    monkeypatch.setattr(room, "_PATIENCE", 0.0)
    keeper._turn()
    assert orders.looked == ["a", "b"]
