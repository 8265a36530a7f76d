"""Halting many agents and letting them go: read back one by one, found again after a crash, never claimed unseen."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from clawback.actions import agents_halt, agents_lift
from clawback.errors import Unreachable
from clawback.model import Enforcement, LaunchSpec, Level, Selector, SelectorKind


@pytest.fixture
def others(there: Any) -> Any:
    for agent, more in (("b", {"parent": "a"}), ("c", {"tags": ("env=prod",), "tenant": "other"})):
        there.core.launch(
            LaunchSpec(agent=agent, command=("x",), policy="support", policy_version=2, policy_text="", **more)
        )
    return there


def frozen(there: Any) -> set[str]:
    return {name for name, levels in there.core.enforced.items() if Level.FREEZE in levels}


@pytest.mark.parametrize(
    ("params", "meant"),
    [
        ({"kind": "all"}, {"a", "b", "c"}),
        ({"kind": "tenant", "value": "acme"}, {"a"}),
        ({"kind": "tag", "value": "env=prod"}, {"c"}),
        ({"kind": "tree", "value": "a"}, {"a", "b"}),
        ({"kind": "team", "value": "nobody"}, set()),
    ],
)
def test_whom_it_means(drive: Any, others: Any, params: dict[str, str], meant: set[str]) -> None:
    step = drive(agents_halt.ACTION, reason="r", **params)
    assert step.run().verified
    assert frozen(others) == meant
    assert step.revert().verified
    assert frozen(others) == set()


def test_made_again_it_is_one_halt(drive: Any, others: Any) -> None:
    for _ in range(3):
        drive(agents_halt.ACTION, kind="all", reason="r").run()
    assert len(others.core.standing) == 1


def test_the_dry_run_names_whom_and_touches_nobody(drive: Any, others: Any) -> None:
    step = drive(agents_halt.ACTION, kind="all", reason="r")
    plan = step.action.plan(step.context, step.params)
    assert "3 agents frozen" in plan.changes[0]
    assert "a, b, c" in plan.checks[0]
    assert frozen(others) == set()


@pytest.mark.parametrize("params", [{"kind": "all", "value": "x"}, {"kind": "team"}, {"kind": "planet", "value": "x"}])
def test_what_means_nobody_is_refused(params: dict[str, str]) -> None:
    with pytest.raises(ValidationError):
        agents_halt.ACTION.params(reason="r", **params)


class TestSabotage:
    """The effect is undone behind its back, or was never there."""

    def test_one_agent_is_thawed(self, drive: Any, others: Any) -> None:
        step = drive(agents_halt.ACTION, kind="all", reason="r")
        step.run()
        others.core.enforced["b"].clear()
        seen = step.verify()
        assert not seen.verified
        assert seen.enforcement is Enforcement.PARTIAL
        assert "NOT frozen: b" in seen.proof

    def test_the_halt_is_lifted_by_somebody(self, drive: Any, others: Any) -> None:
        step = drive(agents_halt.ACTION, kind="all", reason="r")
        step.run()
        others.core.lift(next(iter(others.core.standing)), reason="x", by="mallory")
        assert not step.verify().verified

    def test_the_core_says_yes_and_does_nothing(self, drive: Any, others: Any) -> None:
        others.core.lies.add(Level.FREEZE)
        assert not drive(agents_halt.ACTION, kind="all", reason="r").run().verified

    def test_an_agent_that_started_meanwhile_counts(self, drive: Any, others: Any) -> None:
        step = drive(agents_halt.ACTION, kind="all", reason="r")
        step.run()
        others.core.launch(LaunchSpec(agent="d", command=("x",), policy="p", policy_version=1, policy_text=""))
        assert "NOT frozen: d" in step.verify().proof

    def test_a_core_that_is_away_is_no_proof(self, drive: Any, others: Any) -> None:
        step = drive(agents_halt.ACTION, kind="all", reason="r")
        step.run()
        others.core.down = True
        with pytest.raises(Unreachable):
            step.verify()

    def test_lifted_and_one_agent_does_not_go_on(self, drive: Any, others: Any) -> None:
        drive(agents_halt.ACTION, kind="all", reason="r").run()
        step = drive(agents_lift.ACTION, reason="over")
        assert step.run().verified
        others.core.enforced["c"][Level.FREEZE] = Enforcement.FULL
        seen = step.verify()
        assert not seen.verified
        assert "still frozen: c" in seen.proof


def test_lifting_ends_only_this_incidents_halts(drive: Any, others: Any) -> None:
    drive(agents_halt.ACTION, kind="all", reason="r").run()
    everybody = Selector(kind=SelectorKind.ALL)
    others.core.halt(everybody, Level.FREEZE, reason="mine", by="ann")
    step = drive(agents_lift.ACTION, reason="over")
    assert step.run().verified
    assert "0 agents run again, 3 are held by others" in step.verify().proof
    assert len(others.core.standing) == 1


def test_lifting_reverted_halts_again(drive: Any, others: Any) -> None:
    drive(agents_halt.ACTION, kind="all", reason="r").run()
    step = drive(agents_lift.ACTION, reason="over")
    step.run()
    assert frozen(others) == set()
    assert step.revert().verified
    assert frozen(others) == {"a", "b", "c"}


def test_with_no_halt_there_is_nothing_to_lift(drive: Any, others: Any) -> None:
    step = drive(agents_lift.ACTION, reason="over")
    assert step.run().verified
    assert step.revert().verified


def test_looked_at_again_it_says_no_while_it_stands_and_nothing_once_it_was_lifted(drive: Any, others: Any) -> None:
    step = drive(agents_halt.ACTION, kind="all", reason="r")
    step.run()

    def again() -> Any:
        return step.action.recheck(step.context, step.params, step.captured, step.outcome)

    assert again().verified
    others.core.enforced["b"].clear()
    assert not again().verified
    drive(agents_lift.ACTION, reason="over").run()
    assert again() is None
