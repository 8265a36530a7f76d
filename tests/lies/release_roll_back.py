"""release.roll-back: it moves, is let go, its stage allows again, or one of the parts says yes and does nothing."""

from __future__ import annotations

from lies.answers import asked, yes
from lies.case import Case, Lie
from lies.ladder import level_result, thaw
from lies.staged import as_it_is, wide_draft

from clawback.actions.release_roll_back import ACTION
from clawback.model import Level

_copy_as_it_is, _policy_as_it_is, _wide = as_it_is("copy"), as_it_is("agent"), wide_draft()


def _before(scene):
    """Two stages are open, and somebody widens the policy meanwhile."""
    scene.observe()
    scene.restrict()
    scene.put(scene.agent, scene.WIDER)
    for made_up in (_copy_as_it_is, _policy_as_it_is, _wide):
        made_up.note(scene)


def _params(scene):
    return {"agent": scene.agent, "instance": scene.here().instance, "reason": "a lie suite"}


def _rolled_back(scene, _receipt):
    return (
        scene.enforced(Level.FREEZE)
        and scene.enforced(Level.ISOLATE)
        and scene.stands_still()
        and not scene.allowed(scene.copy, scene.used)
        and scene.decides_by(scene.agent) == scene.POLICY
    )


CASE = Case(
    action=ACTION,
    scene="staged",
    before=_before,
    params=_params,
    holds=_rolled_back,
    lies=(
        Lie(what="it is thawed", drifts=True, behind=thaw, races=True),
        Lie(what="it is let go", behind=lambda scene, _: scene.let_go(Level.FREEZE)),
        Lie(what="its network is given back", behind=lambda scene, _: scene.let_go(Level.ISOLATE)),
        Lie(what="its stage allows again", behind=lambda scene, _: scene.put(scene.copy, scene.POLICY)),
        Lie(what="its policy is widened again", behind=lambda scene, _: scene.put(scene.agent, scene.WIDER)),
        Lie(
            what="the core says frozen and does nothing",
            part="core",
            about=asked("POST", "/contain", '"freeze"'),
            answer=yes(level_result(Level.FREEZE)),
        ),
        Lie(
            what="the core says isolated and does nothing",
            part="core",
            about=asked("POST", "/contain", '"isolate"'),
            answer=yes(level_result(Level.ISOLATE)),
        ),
        Lie(
            what="closing the stage is answered and not done",
            part="gateway",
            about=asked("PUT", "/policies/"),
            answer=_copy_as_it_is,
        ),
        Lie(
            what="the gateway drafts what allows as much and says that it allows nothing",
            part="gateway",
            about=asked("POST", "/draft"),
            answer=_wide,
        ),
        Lie(
            what="restoring the policy is answered and not done",
            part="gateway",
            about=asked("POST", "/restore"),
            answer=_policy_as_it_is,
        ),
    ),
    reads=("core", "gateway"),
)
