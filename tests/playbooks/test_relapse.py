"""An agent that goes rogue again: rolled back during its stages, stopped for a person after a recovery."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import pytest

from clawback.config import ApprovalSettings
from clawback.journal import Journal
from clawback.model import (
    AgentState,
    Disposition,
    Incident,
    IncidentStatus,
    Level,
    NetworkActivity,
    ReceiptState,
    staged_name,
)
from clawback.playbooks.contain_rogue_agent import PLAYBOOK
from clawback.response import Responder, Response, run_playbook
from clawback.world import RecoveryTerms

from .test_contain_rogue_agent import Case, V

pytestmark = pytest.mark.slow

COPY = staged_name("support", "a")


class Person(Case):
    """A case whose steps wait for people as the settings have it by default."""

    def response(self) -> Response:
        return Response(
            self.journal, self.there.world, actor="responder", incident_id=self.id, approvals=ApprovalSettings()
        )


def states(incident: Incident) -> dict[str, ReceiptState]:
    return {receipt.action: receipt.state for receipt in incident.receipts}


def again(journal: Journal, there: Any) -> Person:
    """The second incident: about the instance that was let go."""
    info = there.core.known["a"]
    return Person(journal, there, instance=info.instance, policy=info.policy, policy_version=info.policy_version)


def test_rogue_again_it_stays_stopped_until_a_person_permits_it(journal: Journal, there: Any) -> None:
    assert Person(journal, there).run().status is IncidentStatus.CLOSED
    second = again(journal, there)
    ended = second.run()
    assert ended.status is IncidentStatus.OPEN
    said = states(ended)
    assert said["recovery.permit"] is ReceiptState.AWAITING
    assert (said["agent.stop"], said["release.roll-back"], said["agent.release"]) == (V, V, ReceiptState.FAILED)
    info = there.core.known["a"]
    assert info.state is AgentState.EXITED
    assert Level.STOP in info.hold.levels
    relaunches = there.core.calls.count("relaunch")
    second.run()
    assert there.core.calls.count("relaunch") == relaunches
    asked = next(x for x in journal.approvals() if x.action == "recovery.permit")
    assert any("is brought back once more" in line for line in asked.shown)
    journal.answer(asked.id, nonce=asked.nonce, grant=True, who="ann", reason="looked at it", channel="cli")
    ended = second.run()
    assert [x.action for x in ended.receipts if x.state is not V] == []
    assert ended.status is IncidentStatus.CLOSED
    assert there.core.known["a"].hold is None


def test_rogue_in_a_stage_it_is_rolled_back_and_stopped(
    journal: Journal, there: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    relaunch = there.core.relaunch

    def rogue(agent: str, **more: Any) -> Any:
        info = relaunch(agent, **more)
        about = {"instance": info.instance, "policy": info.policy, "disposition": Disposition.BLOCKED}
        there.world = replace(there.world, recovery=RecoveryTerms(observe_seconds=0.2))
        late = 3600 * 10**9  # whenever the watch looks
        there.core.telemetry.write(
            NetworkActivity,
            host="evil.test",
            port=443,
            activity_id=NetworkActivity.REFUSE,
            time_ns=time.time_ns() + late,
            **about,
        )
        return info

    monkeypatch.setattr(there.core, "relaunch", rogue)
    ended = Case(journal, there).run()
    said = states(ended)
    assert said["release.watch"] is V
    assert "release.restricted" not in said
    assert "agent.relaunch" not in said
    assert (said["release.roll-back"], said["agent.stop"]) == (V, V)
    info = there.core.known["a"]
    assert info.state is AgentState.EXITED
    assert {Level.FREEZE, Level.ISOLATE, Level.STOP} <= set(info.hold.levels)
    assert len([x for x in ended.receipts if x.action == "evidence.collect"]) == 2  # of it, too, before it was stopped
    assert ended.status is IncidentStatus.CLOSED
    # The instance that misbehaved was contained by this incident; brought back it is by a person alone.
    second = again(journal, there)
    assert states(second.run())["recovery.permit"] is ReceiptState.AWAITING


def test_a_second_incident_during_the_stages_is_seen_by_the_first(
    journal: Journal, there: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    relaunch = there.core.relaunch

    def found(agent: str, **more: Any) -> Any:
        info = relaunch(agent, **more)
        Case(journal, there, instance=info.instance, policy=info.policy, policy_version=info.policy_version)
        return info

    monkeypatch.setattr(there.core, "relaunch", found)
    ended = Case(journal, there).run()
    assert states(ended)["release.roll-back"] is V
    assert there.core.calls.count("relaunch") == 1


def test_what_was_let_go_is_held_if_the_last_replay_is_not_denied(journal: Journal, there: Any) -> None:
    core = there.core

    def opened(call: str) -> None:
        if core.known["a"].instance == "i1rr":
            core.open_calls.add(("open", "/root/.aws/credentials"))

    core.before_call = opened
    ended = Case(journal, there).run()
    assert states(ended)["policy.validate"] is ReceiptState.UNVERIFIED
    assert set(core.known["a"].hold.levels) == {Level.FREEZE, Level.ISOLATE}


def test_a_playbook_run_anew_repeats_no_stage(journal: Journal, there: Any) -> None:
    case = Case(journal, there)
    case.run()
    versions = len(there.policies.versions(COPY))
    run_playbook(PLAYBOOK, Responder(case.response()))
    assert len(there.policies.versions(COPY)) == versions


def test_a_stage_that_is_not_proved_is_held_once_however_often_it_is_looked_at(journal: Journal, there: Any) -> None:
    there.core.weaker_after_relaunch = True
    case = Case(journal, there)
    case.run()
    assert case.state("release.observe-only") is ReceiptState.UNVERIFIED
    held = len(case.receipts("agent.freeze"))
    for _ in range(3):
        case.run()
    assert case.state("release.observe-only") is ReceiptState.FAILED
    assert "layer network is partial" in case.receipts("release.observe-only")[0].proof
    assert len(case.receipts("agent.freeze")) == held
    assert there.core.known["a"].hold is not None
