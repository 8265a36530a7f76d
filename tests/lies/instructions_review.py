"""instructions.review: nobody let the agent go after all, or the core tells of another one, or it searches."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from lies.answers import asked
from lies.case import Case, Lie
from lies.liar import Answer
from lies.record import hidden, vanishing

from clawback.actions.agent_freeze import ACTION as FREEZE
from clawback.actions.instructions_review import ACTION
from clawback.enforcement.core import wire
from clawback.model import Disposition, Hold, Level, NetworkActivity, Order, Source

_seen = []


def _before(scene):
    """It was frozen, and a person has let it go: the policy is too tight."""
    _seen.append(scene)
    refused = {"host": "files.test", "port": 443, "disposition": Disposition.BLOCKED}
    scene.tell(Source.POLICY, NetworkActivity, activity_id=NetworkActivity.REFUSE, **refused)
    scene.must(FREEZE, **scene.who, reason="a spike")
    scene.let_go(Level.FREEZE)


def _params(scene):
    return {**scene.who, "findings": 1}


def _kernel(scene, word):
    Path(scene.record()["cgroup"], "cgroup.freeze").write_text(word)


def _order(scene, _outcome=None):
    scene.true_core.contain(scene.agent, Level.FREEZE, reason="not so fast", by="another", incident=scene.incident_id)


def _order_in_secret(scene, outcome):
    _order(scene, outcome)
    scene.liars["core"].lie(asked("GET", f"/agents/{scene.agent}"), _told(hold=None))


def _told(**changes):
    """The agent as it is not; a probe of it is answered as it is."""

    def answer(_request):
        return Answer(wire.AGENT.dump_json(dataclasses.replace(_seen[-1].info, **changes)))

    return answer


def _plainly(request):
    return request.method == "GET" and request.path == f"/agents/{_seen[-1].agent}"


def _isolated_by_hand(_request):
    order = Order(levels=(Level.FREEZE, Level.ISOLATE), reason="injected", by="ann")
    return _told(hold=Hold.of(_seen[-1].agent, (order,)))(_request)


CASE = Case(
    action=ACTION,
    scene="steered",
    before=_before,
    params=_params,
    holds=lambda scene, receipt: (
        (receipt.outcome["person"], receipt.outcome["confirmed"]) == ("harmless", False)
        and receipt.outcome["refused"] == {"destination files.test:443": 1}
        and not scene.stands_still(2.0)
    ),
    lies=(
        Lie(
            what="it is frozen by the kernel's file",
            behind=lambda scene, _: _kernel(scene, "1"),
            mend=lambda scene: _kernel(scene, "0"),
        ),
        Lie(what="it is ordered held again", behind=_order, mend=lambda scene: scene.let_go(Level.FREEZE)),
        Lie(
            what="the core says let go, of one that is held",
            behind=_order_in_secret,
            mend=lambda scene: scene.let_go(Level.FREEZE),
        ),
        Lie(
            what="the core tells of another instance",
            part="core",
            about=_plainly,
            answer=_told(instance="another"),
        ),
        Lie(what="the core tells of another agent", part="core", about=_plainly, answer=_told(agent="another")),
        Lie(
            what="the core says that a person isolated it",
            part="core",
            about=_plainly,
            answer=_isolated_by_hand,
        ),
        *vanishing(Source.POLICY),
        hidden(ACTION, _params, Source.POLICY),
    ),
    reads=("core",),
    changes_nothing="it reads what was tried and what a person has done, and decides in its own receipt",
)
