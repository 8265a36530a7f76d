"""release.observe-only: something is allowed again, it is held, started by another, or not started at all."""

from __future__ import annotations

import dataclasses

from lies.answers import asked, yes
from lies.case import Case, Lie
from lies.ladder import level_result
from lies.liar import Answer
from lies.staged import as_it_is, wide_draft

from clawback.actions.release_observe import ACTION
from clawback.enforcement.core import wire
from clawback.model import Level

_as_it_is, _wide, _seen = as_it_is("agent"), wide_draft(), []


def _before(scene):
    _seen.append(scene)
    _as_it_is.note(scene)
    _wide.note(scene)


def _made_up(_request):
    """A new instance under the copy, in words."""
    scene = _seen[-1]
    version = scene.true_policies.active(scene.copy).version
    new = {"instance": scene.instance + "-new", "policy": scene.copy, "policy_version": version}
    return Answer(wire.AGENT.dump_json(dataclasses.replace(scene.info, **new)))


def _observed(scene, _receipt):
    info = scene.here()
    return (
        info.instance != scene.instance
        and (info.policy, info.state.value, info.hold) == (scene.copy, "running", None)
        and scene.in_force(scene.copy)
        and not scene.allowed(scene.copy, scene.used)
        and not scene.stands_still(2.0)
    )


def _held(scene, _receipt):
    return (
        scene.enforced(Level.FREEZE)
        and scene.enforced(Level.ISOLATE)
        and scene.stands_still()
        and not scene.allowed(scene.copy, scene.used)
    )


CASE = Case(
    action=ACTION,
    scene="staged",
    before=_before,
    params=lambda scene: {**scene.who, "reason": "a lie suite"},
    holds=_observed,
    lies=(
        Lie(what="its policy is put in the stage's place", behind=lambda scene, _: scene.put(scene.copy, scene.POLICY)),
        Lie(
            what="it is held again",
            behind=lambda scene, _: scene.hold(),
            mend=lambda scene: scene.let_go(Level.FREEZE),
        ),
        Lie(what="another starts it under its policy", behind=lambda scene, _: scene.start_anew()),
        Lie(
            what="the core says relaunched and does nothing",
            part="core",
            about=asked("POST", "/relaunch"),
            answer=_made_up,
        ),
        Lie(
            what="putting is answered and not done",
            part="gateway",
            about=asked("PUT", "/policies/"),
            answer=_as_it_is,
        ),
        Lie(
            what="the gateway drafts what allows as much and says that it allows nothing",
            part="gateway",
            about=asked("POST", "/draft"),
            answer=_wide,
        ),
    ),
    reads=("core", "gateway"),
    undone=_held,
    revert_lies=(
        Lie(what="it is let go again", behind=lambda scene, _: scene.let_go()),
        Lie(what="the copy allows again", behind=lambda scene, _: scene.put(scene.copy, scene.POLICY)),
        Lie(
            what="the core says frozen and does nothing",
            part="core",
            about=asked("POST", "/contain", '"freeze"'),
            answer=yes(level_result(Level.FREEZE)),
        ),
    ),
    revert_reads=("core", "gateway"),
)
