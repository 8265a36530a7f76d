"""`notify.send`: what is delivered is said to be, and nothing else."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from clawback.action import Context
from clawback.actions.notify_send import ACTION
from clawback.errors import InvalidInput, Unreachable
from clawback.model import Enforcement
from clawback.world.notices import Delivery, Outcome


class Notifier:
    """Channels that answer as they are told, and remember what they took."""

    def __init__(self, **outcomes: Outcome) -> None:
        self.outcomes = outcomes
        self.sent: list[tuple[str, str]] = []

    def channels(self) -> dict[str, str]:
        return dict.fromkeys(self.outcomes, "webhook")

    def send(self, notice: Any, *, key: str, channels: tuple[str, ...]) -> dict[str, Delivery]:
        self.sent += [(name, key) for name in channels]
        return {name: Delivery(outcome=self.outcomes[name], answer="status 200: ok") for name in channels}


@pytest.fixture
def drive_with(drive: Any, there: Any, make_incident: Any) -> Any:
    def start(notifier: Notifier | None, **params: Any) -> Any:
        step = drive(ACTION, **{"stage": "opened", **params})
        world = replace(there.world, notifier_or_none=notifier)
        step.context = Context(incident=make_incident(), world=world, actor="tester")
        return step

    return start


def test_delivered_to_all_is_verified_by_their_answers(drive_with: Any) -> None:
    notifier = Notifier(soc=Outcome.DELIVERED, oncall=Outcome.DELIVERED)
    step = drive_with(notifier)
    plan = ACTION.plan(step.context, step.params)
    assert plan.changes == ("+ message to soc (webhook)", "+ message to oncall (webhook)")
    assert any("INC-1" in line for line in plan.checks)
    assert notifier.sent == [], "planning sends nothing"
    seen = step.run()
    assert (seen.verified, seen.enforcement) == (True, Enforcement.FULL)
    assert "delivered to soc: status 200" in seen.proof
    assert {key for _, key in notifier.sent} == {"INC-1/opened/0"}


def test_refused_by_one_is_not_verified(drive_with: Any) -> None:
    seen = drive_with(Notifier(soc=Outcome.DELIVERED, oncall=Outcome.REFUSED)).run()
    assert (seen.verified, seen.enforcement) == (False, Enforcement.PARTIAL)
    assert "NOT delivered to oncall" in seen.proof


def test_silence_leaves_it_pending_after_the_others_were_told(drive_with: Any) -> None:
    notifier = Notifier(soc=Outcome.DELIVERED, oncall=Outcome.SILENT)
    step = drive_with(notifier)
    with pytest.raises(Unreachable, match="oncall"):
        step.run()
    assert [name for name, _ in notifier.sent] == ["soc", "oncall"]
    notifier.outcomes["oncall"] = Outcome.DELIVERED
    assert step.run().verified


def test_an_outcome_that_does_not_name_a_channel_proves_nothing_of_it(drive_with: Any) -> None:
    step = drive_with(Notifier(soc=Outcome.DELIVERED))
    step.run()
    step.outcome = {"answers": {}}
    assert not step.verify().verified


def test_without_channels_it_says_that_nobody_was_told(drive_with: Any) -> None:
    for notifier in (None, Notifier()):
        seen = drive_with(notifier).run()
        assert (seen.verified, seen.enforcement) == (True, Enforcement.NONE)
        assert "nobody was told" in seen.proof


def test_only_the_channels_asked_for_and_an_unknown_one_is_named(drive_with: Any) -> None:
    notifier = Notifier(soc=Outcome.DELIVERED, oncall=Outcome.DELIVERED)
    assert drive_with(notifier, channels=("soc",)).run().verified
    assert [name for name, _ in notifier.sent] == ["soc"]
    with pytest.raises(InvalidInput, match="nowhere"):
        drive_with(notifier, channels=("nowhere",)).run()
