"""Undoing a whole response: in reverse, each step honest, and nothing claimed that was not seen."""

from __future__ import annotations

from typing import Any

import pytest

from clawback.errors import Refused, Unreachable
from clawback.journal import REVERTED, Journal
from clawback.model import IncidentStatus, Level, ReceiptState
from clawback.response import Fate, Response, plan_undo, undo

from .test_contain_rogue_agent import Case

pytestmark = pytest.mark.slow


@pytest.fixture
def response(journal: Journal, there: Any) -> Response:
    case = Case(journal, there)
    return case.response()


def contained(response: Response) -> None:
    """As far as the reflex and the containment get; no recovery yet."""
    from clawback.actions.agent_freeze import ACTION as FREEZE
    from clawback.actions.agent_isolate import ACTION as ISOLATE
    from clawback.actions.agent_seal import ACTION as SEAL

    for action in (FREEZE, ISOLATE, SEAL):
        response.execute(action, action.params(agent="a", instance="i1", reason="test"))


def test_the_last_step_goes_first_and_what_stays_is_said(response: Response, there: Any) -> None:
    contained(response)
    planned = plan_undo(response)
    assert [(x.receipt.action, x.fate) for x in planned] == [
        ("agent.seal", Fate.STAYS),
        ("agent.isolate", Fate.UNDO),
        ("agent.freeze", Fate.UNDO),
    ]
    done = tuple(undo(response, "false alarm"))
    assert all(step.honest for step in done)
    assert [step.receipt.state in REVERTED for step in done] == [False, True, True]
    assert "irreversible" in done[0].note
    hold = there.core.known["a"].hold
    assert hold is None or not {Level.FREEZE, Level.ISOLATE} & set(hold.levels)
    said = [line.what for line in response.journal.incident(response.incident_id).timeline]
    assert said.index("undoing began") < said.index("agent.isolate reverted") < said.index("agent.freeze reverted")


def test_twice_is_once(response: Response) -> None:
    contained(response)
    tuple(undo(response, "false alarm"))
    assert [step.fate for step in undo(response, "again")] == [Fate.STAYS, Fate.NOTHING, Fate.NOTHING]


def test_a_resumed_playbook_does_not_redo_what_was_undone(journal: Journal, there: Any) -> None:
    case = Case(journal, there)
    case.run()
    tuple(undo(case.response(), "false alarm"))
    before = case.receipts("policy.restore")[0]
    assert before.state in REVERTED
    case.run()
    assert case.receipts("policy.restore")[0] == before


def test_a_part_that_is_away_leaves_its_step_open_and_stops_no_other(
    response: Response, there: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    contained(response)

    def away(*_: Any, levels: Any = (), **__: Any) -> None:
        raise Unreachable("the core does not answer")

    release = there.core.release

    def only_freeze(agent: str, *, levels: Any = (), **more: Any) -> Any:
        return release(agent, levels=levels, **more) if Level.ISOLATE not in levels else away()

    monkeypatch.setattr(there.core, "release", only_freeze)
    done = {step.receipt.action: step for step in undo(response, "false alarm")}
    assert not done["agent.isolate"].honest
    assert done["agent.isolate"].receipt.state is ReceiptState.REVERT_PENDING
    assert done["agent.freeze"].honest
    incident = response.journal.incident(response.incident_id)
    assert incident.status is IncidentStatus.OPEN
    assert "not undone: agent.isolate" in incident.timeline[-1].detail
    monkeypatch.undo()
    assert all(step.honest for step in undo(response, "again"))


def test_a_reason_is_wanted(response: Response) -> None:
    with pytest.raises(Refused, match="without a reason"):
        tuple(undo(response, " "))


def test_after_a_whole_recovery_the_agent_that_was_let_go_goes_on(journal: Journal, there: Any) -> None:
    case = Case(journal, there)
    assert case.run().status is IncidentStatus.CLOSED
    done = tuple(undo(case.response(), "false alarm"))
    assert all(step.honest for step in done), [(x.receipt.action, x.note, x.receipt.error) for x in done]
    info = there.core.known["a"]
    assert info.instance == "i1rr"
    assert info.hold is None or not {Level.FREEZE, Level.ISOLATE, Level.STOP} & set(info.hold.levels)
    assert there.policies.active("support").sha256 == there.policies.versions("support")[1].sha256
    assert "contain stop" not in there.core.calls[there.core.calls.index("relaunch") :]


class Killed(BaseException):
    """Whoever undoes dies here."""


@pytest.mark.parametrize("share", range(16))
def test_killed_anywhere_it_is_undone_to_its_end_and_the_playbook_is_not_taken_up(
    journal: Journal, there: Any, share: int
) -> None:
    case, seen = Case(journal, there), 0
    contained(case.response())

    def die(_call: str) -> None:
        nonlocal seen
        seen += 1
        if seen == share + 1:
            there.core.before_call = None
            raise Killed

    there.core.before_call = die
    try:
        tuple(undo(case.response(), "false alarm"))
    except Killed:
        assert [x.what for x in journal.incident(case.id).timeline].count("undoing began") == 1
    there.core.before_call = None
    ended = case.run()  # as a watch does that starts again
    assert {x.action: x.state in REVERTED for x in ended.receipts} == {
        "agent.freeze": True,
        "agent.isolate": True,
        "agent.seal": False,
    }
    assert ended.status is IncidentStatus.CLOSED
    assert there.core.calls.count("evidence") == 0, "the playbook was taken up"
    hold = there.core.known["a"].hold
    assert hold is None or not {Level.FREEZE, Level.ISOLATE} & set(hold.levels)


def test_what_was_never_begun_is_settled_and_not_begun_afterwards(journal: Journal, there: Any) -> None:
    case = Case(journal, there)
    there.vault.down = True
    assert case.run().status is IncidentStatus.OPEN
    assert case.state("agent.release") is ReceiptState.FAILED
    there.vault.down = False
    steps = {x.receipt.action: x for x in undo(case.response(), "false alarm")}
    assert steps["agent.release"].receipt.state is ReceiptState.ALREADY_ABSENT
    case.run()
    assert there.vault.created == 0
    assert "relaunch" not in there.core.calls


def test_undone_by_somebody_else_is_already_absent_and_gone_is_orphaned(journal: Journal, there: Any) -> None:
    case = Case(journal, there)
    contained(case.response())
    there.core.release("a", levels=(Level.FREEZE,), reason="x", by="somebody")
    states = {x.receipt.action: x.receipt.state for x in undo(case.response(), "false alarm")}
    assert states["agent.freeze"] is ReceiptState.ALREADY_ABSENT
    assert states["agent.isolate"] is ReceiptState.REVERTED
    other = Case(journal, there, instance="i1", resource="another")
    contained(other.response())
    del there.core.known["a"]
    done = {x.receipt.action: x for x in undo(other.response(), "false alarm")}
    assert done["agent.isolate"].receipt.state is ReceiptState.ORPHANED
    assert not done["agent.isolate"].honest
    assert journal.incident(other.id).status is IncidentStatus.OPEN
