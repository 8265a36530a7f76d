"""Killed at every write of the journal, the response goes on in a new process, and no effect is made twice."""

from __future__ import annotations

import signal
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from clawback.journal import Journal
from clawback.model import Incident, IncidentStatus, ReceiptState

Life = Callable[..., int]


def incident_of(state: Path) -> Incident:
    (incident,) = Journal(f"sqlite:///{state / 'journal.db'}").incidents()
    return incident


def calls(state: Path) -> Counter[str]:
    file = state / "effects" / "calls"
    return Counter(file.read_text().splitlines() if file.exists() else ())


def writes(life: Life, state: Path, *arguments: str) -> int:
    """How many writes a run makes that nobody interrupts: it dies at the nth for as long as there is one."""
    count = 0
    while life(state / f"count-{count}", "--die", count + 1, "--when", "before", *arguments) == -signal.SIGKILL:
        count += 1
        assert count < 100
    return count


@pytest.mark.slow
def test_killed_at_every_write(life: Life, rehearsal: ModuleType, tmp_path: Path) -> None:
    steps = writes(life, tmp_path)
    assert steps >= 3 * len(rehearsal.NAMES)
    for step in range(1, steps + 1):
        for when in ("before", "after"):
            state = tmp_path / f"{step}-{when}"
            assert life(state, "--die", step, "--when", when) == -signal.SIGKILL
            assert life(state) == 0
            incident, made = incident_of(state), calls(state)
            where = f"killed {when} write {step}"
            assert incident.status is IncidentStatus.CLOSED, where
            assert [receipt.state for receipt in incident.receipts] == [ReceiptState.VERIFIED] * 3, where
            assert all(receipt.captured == {"existed": False} for receipt in incident.receipts), where
            for name in rehearsal.NAMES:
                assert made[f"effect {name}"] == 1, where
            # Only the step in flight may be asked again, once.
            again = [name for name in rehearsal.NAMES if made[f"apply {name}"] != 1]
            assert len(again) <= 1, where
            assert all(made[f"apply {name}"] == 2 for name in again), where


@pytest.mark.slow
def test_killed_at_every_write_of_steps_side_by_side(life: Life, rehearsal: ModuleType, tmp_path: Path) -> None:
    steps = writes(life, tmp_path, "--together")
    assert steps > writes(life, tmp_path / "one-by-one"), "each of them stands in the journal before any is made"
    for step in range(1, steps + 1):
        for when in ("before", "after"):
            state = tmp_path / f"{step}-{when}"
            assert life(state, "--together", "--die", step, "--when", when) == -signal.SIGKILL
            assert life(state, "--together") == 0
            incident, made = incident_of(state), calls(state)
            where = f"killed {when} write {step}"
            assert incident.status is IncidentStatus.CLOSED, where
            assert [receipt.key.split(":")[1] for receipt in incident.receipts] == list(rehearsal.NAMES), where
            assert [receipt.state for receipt in incident.receipts] == [ReceiptState.VERIFIED] * 3, where
            assert all(receipt.captured == {"existed": False} for receipt in incident.receipts), where
            for name in rehearsal.NAMES:
                # Killed from beside, between the effect and its line, it is there without one. Twice is an error.
                assert (state / "effects" / name).exists(), where
                assert made[f"effect {name}"] <= 1, where
                assert made[f"apply {name}"] <= 2, where


@pytest.mark.slow
def test_killed_at_every_write_and_again_at_the_next(life: Life, rehearsal: ModuleType, tmp_path: Path) -> None:
    state, lives = tmp_path / "state", 0
    while life(state, "--die", 7, "--when", "after") == -signal.SIGKILL:
        lives += 1
        assert lives < 100
    assert lives > 1
    assert incident_of(state).status is IncidentStatus.CLOSED
    for name in rehearsal.NAMES:
        assert calls(state)[f"effect {name}"] == 1


@pytest.mark.slow
def test_killed_at_every_write_of_the_reverts(life: Life, rehearsal: ModuleType, tmp_path: Path) -> None:
    for step in range(2, 30):
        for when in ("before", "after"):
            state = tmp_path / f"{step}-{when}"
            assert life(state) == 0
            ended = life(state, "--revert", "--die", step, "--when", when)
            if ended == 0:
                assert step > 6
                return
            assert ended == -signal.SIGKILL
            assert life(state, "--revert") == 0
            states = {receipt.state for receipt in incident_of(state).receipts}
            assert states <= {ReceiptState.REVERTED, ReceiptState.ALREADY_ABSENT}, f"{when} {step}"
            assert not any((state / "effects" / name).exists() for name in rehearsal.NAMES)
            made = calls(state)
            assert all(made[f"effect {name}"] == 1 for name in rehearsal.NAMES)
    pytest.fail("the reverts never ran to their end")


def test_an_interrupted_response_closes_nothing(life: Life, tmp_path: Path) -> None:
    assert life(tmp_path, "--die", 4, "--when", "after") == -signal.SIGKILL
    incident = incident_of(tmp_path)
    assert incident.status is IncidentStatus.OPEN
    assert {receipt.state for receipt in incident.receipts} <= {ReceiptState.INTENDED, ReceiptState.APPLIED}


@pytest.mark.slow
def test_killed_at_every_write_of_an_undo_it_is_undone_and_the_playbook_is_not_taken_up(
    life: Life, rehearsal: ModuleType, tmp_path: Path
) -> None:
    """The response itself was cut off after its first step, so that there is a playbook to be taken up wrongly."""
    middle = writes(life, tmp_path) // 2
    for step in range(1, 40):
        state = tmp_path / f"undo-{step}"
        assert life(state, "--die", middle) == -signal.SIGKILL
        begun = [x for x in incident_of(state).receipts if x.captured_ns]
        assert 0 < len(begun) < len(rehearsal.NAMES)
        ended = life(state, "--undo", "--die", step)
        said = [line.what for line in incident_of(state).timeline]
        assert life(state) == 0
        incident, made = incident_of(state), calls(state)
        where = f"killed after write {step} of the undo"
        if "undoing began" in said:
            assert incident.status is IncidentStatus.CLOSED, where
            assert {x.state for x in incident.receipts} <= {ReceiptState.REVERTED, ReceiptState.ALREADY_ABSENT}, where
            later = set(rehearsal.NAMES) - {x.key.split(":")[1] for x in begun}
            assert not any(made[f"apply {name}"] for name in later), where
            assert not any((state / "effects" / name).exists() for name in rehearsal.NAMES), where
        if ended == 0:
            return
        assert ended == -signal.SIGKILL
    pytest.fail("the undo never ran to its end")
