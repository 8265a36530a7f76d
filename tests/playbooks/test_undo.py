"""Undoing a whole response: in reverse, each step honest, and nothing claimed that was not seen."""

from __future__ import annotations

from typing import Any

import pytest

from clawback.errors import Refused, Unreachable
from clawback.journal import REVERTED, Journal
from clawback.model import IncidentStatus, Level, ReceiptState
from clawback.response import Fate, Response, plan_undo, undo

from .test_contain_rogue_agent import Case


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
