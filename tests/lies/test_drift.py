"""A real key is enabled again behind our back after the incident was closed: it is open again, and ends refused."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from lies.ladder import thaw
from lies.scenes import Scene, until

from clawback.actions.agent_freeze import ACTION as FREEZE
from clawback.actions.aws_refuse_sessions import ACTION as REFUSE
from clawback.actions.aws_rotate_key import ACTION as ROTATE_KEY
from clawback.actions.policy_restore import ACTION as RESTORE
from clawback.actions.vault_rotate_token import ACTION as ROTATE_TOKEN
from clawback.config import DriftSettings
from clawback.model import IncidentStatus, Level, ReceiptState
from clawback.orchestrate.drift import Drift
from clawback.orchestrate.engine import Engine
from clawback.playbook import playbook

Make = Callable[[str], Scene]
NAME = "contain-rogue-agent"  # as the scenes open their incidents


class Watched:
    """A scene, an engine with one playbook on it, and what looks for drift."""

    def __init__(self, scene: Any, *steps: tuple[Any, dict[str, Any]]) -> None:
        self.scene = scene

        @playbook(id=NAME, title="t", answers={"d"}, runbook="r")
        def play(_incident: Any, respond: Any) -> None:
            for action, params in steps:
                respond(action, action.params(**params))

        journal = scene.journal
        self.engine = Engine(journal, scene.world, {NAME: play}, actions={action.id: action for action, _ in steps})
        self.engine.response_to = self._response  # type: ignore[method-assign]  # evidence is another's
        self.steps = steps
        self.started: list[str] = []
        settings = DriftSettings(interval_seconds=1)
        self.drift = Drift(journal, settings, self._response, self.started.append)

    def _response(self, incident: str) -> Any:
        assert incident == self.scene.incident_id
        response = self.scene.response()
        response._actions = {action.id: action for action, _ in self.steps}
        return response

    def run(self) -> Any:
        asyncio.run(self.engine.run(self.scene.incident_id))
        return self.now()

    def look(self) -> tuple[str, ...]:
        return asyncio.run(self.drift.look())

    def now(self) -> Any:
        return self.scene.journal.incident(self.scene.incident_id)

    def drifted(self, action: Any) -> None:
        """It is seen, the incident is open, and the playbook ends it again."""
        assert self.look() == (self.scene.incident_id,)
        incident = self.now()
        assert incident.status is IncidentStatus.OPEN
        (receipt,) = [one for one in incident.receipts if one.state is ReceiptState.UNVERIFIED]
        assert receipt.action == action.id
        assert receipt.proof.startswith("drift: ")
        assert self.look() == (), "said once"
        incident = self.run()
        assert incident.status is IncidentStatus.CLOSED, incident.receipts
        assert {one.state for one in incident.receipts} == {ReceiptState.VERIFIED}
        assert self.look() == ()


@pytest.fixture
def closed(scene_of: Make) -> Callable[..., Watched]:
    def make(kind: str, steps: Callable[[Any], tuple[tuple[Any, dict[str, Any]], ...]]) -> Watched:
        scene = scene_of(kind)
        watched = Watched(scene, *steps(scene))
        assert watched.run().status is IncidentStatus.CLOSED, watched.now().receipts
        assert watched.look() == ()
        return watched

    return make


def _credentials(scene: Any) -> tuple[tuple[Any, dict[str, Any]], ...]:
    return (
        (ROTATE_TOKEN, {"agent": scene.agent, "name": "vault-token"}),
        (ROTATE_KEY, {"agent": scene.agent, "name": "aws-key"}),
        (REFUSE, {"agent": scene.agent, "name": "aws-session"}),
    )


@pytest.mark.parts
@pytest.mark.slow
def test_a_key_that_is_enabled_again(closed: Any) -> None:
    watched = closed("issuers", _credentials)
    scene = watched.scene
    scene.store.discard(scene.agent, "aws-key")  # as the playbook does at its end: IAM's word is left
    scene.iam.update_access_key(UserName=scene.grants.user, AccessKeyId=scene.old_key_id(), Status="Active")
    assert scene.key_works(scene.grants.key)
    watched.drifted(ROTATE_KEY)
    assert not scene.key_works(scene.grants.key)


@pytest.mark.parts
@pytest.mark.slow
def test_a_deny_policy_that_is_taken_away(closed: Any) -> None:
    watched = closed("issuers", _credentials)
    scene = watched.scene
    name = f"clawback-{scene.incident_id}-aws-session"
    scene.iam.delete_role_policy(RoleName=scene.grants.role.rpartition("/")[2], PolicyName=name)
    assert scene.session_works(scene.grants.session)
    watched.drifted(REFUSE)
    assert not scene.session_works(scene.grants.session)


@pytest.mark.parts
@pytest.mark.slow
def test_an_issuer_that_does_not_answer_is_no_drift(closed: Any) -> None:
    from lies.liar import FAULTS

    watched = closed("issuers", _credentials)
    before = watched.now()
    for fault in ("cut off", "garbage", "an empty object", "a failing server"):
        for liar in watched.scene.liars.values():
            liar.lie(lambda _: True, FAULTS[fault])
        assert watched.look() == ()
        assert watched.scene.honest()
    assert watched.now() == before


@pytest.mark.parts
@pytest.mark.slow
def test_somebody_working_on_the_agent_is_left_alone(closed: Any) -> None:
    watched = closed("issuers", _credentials)
    scene = watched.scene
    scene.iam.update_access_key(UserName=scene.grants.user, AccessKeyId=scene.old_key_id(), Status="Active")
    with scene.journal.lock(scene.agent):
        assert watched.look() == ()
    watched.drifted(ROTATE_KEY)


@pytest.mark.parts
@pytest.mark.slow
def test_the_policy_that_was_taken_away_decides_again(closed: Any) -> None:
    watched = closed("policies", lambda scene: ((RESTORE, {"policy": scene.agent, "reason": "drift"}),))
    scene = watched.scene
    scene.true_policies.put(scene.agent, scene.WIDER, author="owner", reason="another matter")
    assert watched.look() == (), "a new policy is its author's business"
    scene.true_policies.put(scene.agent, scene.WIDE, author="somebody", reason="quick fix")
    watched.drifted(RESTORE)


@pytest.mark.kernel
@pytest.mark.parts
@pytest.mark.slow
def test_a_frozen_agent_that_moves_and_one_that_was_let_go(closed: Any) -> None:
    watched = closed("host", lambda scene: ((FREEZE, {**scene.who, "reason": "drift"}),))
    scene = watched.scene
    for _ in range(50):  # the core's keeper is at it too, and may be first
        thaw(scene)
        if watched.look():
            break
    else:
        pytest.fail("it never was seen to move")
    assert watched.now().status is IncidentStatus.OPEN
    until(lambda: scene.enforced(Level.FREEZE), what="the keeper")
    assert watched.run().status is IncidentStatus.CLOSED
    scene.let_go(Level.FREEZE)
    assert watched.look() == (), "who may release may release"
