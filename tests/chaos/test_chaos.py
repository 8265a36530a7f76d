"""A slice of `make chaos`: some seconds of trials, and that a trial that must fail does."""

from __future__ import annotations

import importlib.util
import itertools
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

pytestmark = pytest.mark.slow
SECONDS = 12.0


@pytest.fixture(scope="module")
def runner() -> ModuleType:
    spec = importlib.util.spec_from_file_location("chaos_run", Path(__file__).with_name("run.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_killed_anywhere_with_anything_wrong(capfd: pytest.CaptureFixture[str]) -> None:
    """In a process of its own: it forks, and the tests' own process has threads by now."""
    import subprocess

    script = Path(__file__).with_name("run.py")
    done = subprocess.run(
        [sys.executable, str(script), "--kills", "40", "--seconds", str(SECONDS), "--playbook", "contain-rogue-agent"],
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    assert "failed: none" in done.stdout
    assert " kills " in done.stdout.splitlines()[-1]


def test_the_same_seed_is_the_same_trial(runner: ModuleType) -> None:
    runner.rooms()
    from chaos.outside import KINDS
    from chaos.plan import SERVERS, draw

    borders = {("a", "x"): 100, ("b", "y"): 50}
    assert [draw(seed, borders) for seed in range(50)] == [draw(seed, borders) for seed in range(50)]
    plans = [draw(seed, borders) for seed in range(200)]
    assert {life.role for plan in plans for life in plan.lives} == {"reflex", "flow", "undo"}
    assert {fault.kind for plan in plans for life in plan.lives for fault in life.faults} == set(KINDS)
    assert any(life.pages and life.full_at for plan in plans for life in plan.lives)
    assert any(life.clock or life.step for plan in plans for life in plan.lives)
    real = [draw(seed, borders, real=True) for seed in range(400)]
    faults = {(fault.part, fault.kind) for plan in real for life in plan.lives for fault in life.faults}
    assert faults == set(itertools.product(SERVERS, KINDS)) - {("journal", "lying")}


def test_a_false_word_is_found(runner: ModuleType, there: Any, tmp_path: Path) -> None:
    """The invariants bite: a world that is changed behind a verified receipt is not passed over."""
    runner.rooms()
    from chaos.invariants import Baseline, broken
    from chaos.trial import finding_for

    from clawback.actions.agent_freeze import ACTION as FREEZE
    from clawback.actions.vault_rotate_token import ACTION as ROTATE
    from clawback.journal import Journal
    from clawback.model import Level, ReceiptState
    from clawback.response import Response

    journal = Journal(f"sqlite:///{tmp_path / 'journal.db'}")
    incident, _ = journal.open_or_join(finding_for("secrets.outside-allow-list"), playbook="contain-rogue-agent")
    response = Response(journal, there.world, "test", incident.id, actions={}, without_evidence="none is wanted here")

    def problems() -> list[str]:
        return broken(journal, there, undone=False, lied=False, at_rest=True, like=Baseline(versions=2))

    for action, params in (
        (FREEZE, {"agent": "a", "instance": "i1", "reason": "r"}),
        (ROTATE, {"agent": "a", "name": "vault-token"}),
    ):
        assert response.execute(action, action.params(**params)).state is ReceiptState.VERIFIED
    journal.close(incident)
    assert problems() == []
    there.vault.add("acc-1", "again", {})
    assert any("vault.rotate-token says verified" in problem for problem in problems())
    there.vault.live.pop("acc-1")
    there.vault.add("acc-9", "lost", {"clawback_step": "vault.rotate-token/vault-token"})
    assert any("2 tokens were issued for one" in problem for problem in problems())
    there.vault.live.pop("acc-9")
    there.core.enforced["a"].pop(Level.FREEZE)
    assert any("agent.freeze says verified" in problem for problem in problems())
    journal.dispose()
