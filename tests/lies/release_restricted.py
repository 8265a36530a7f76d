"""release.restricted: more is allowed than was of use, or nothing; the gateway says yes and keeps what it had."""

from __future__ import annotations

from lies.answers import asked
from lies.case import Case, Lie
from lies.staged import as_it_is, wide_draft

from clawback.actions.release_restricted import ACTION
from clawback.model import Level

_as_it_is, _wide = as_it_is("copy"), wide_draft()


def _before(scene):
    scene.observe()
    scene.nothing = scene.decides_by(scene.copy)
    _as_it_is.note(scene)
    _wide.note(scene)


def _params(scene):
    return {"agent": scene.agent, "instance": scene.here().instance, "reason": "a lie suite"}


def _restricted(scene, _receipt):
    info = scene.here()
    return (
        (info.policy, info.state.value, info.hold) == (scene.copy, "running", None)
        and scene.allowed(scene.copy, scene.used)
        and not scene.allowed(scene.copy, scene.rogue)
        and scene.called()
    )


CASE = Case(
    action=ACTION,
    scene="staged",
    before=_before,
    params=_params,
    holds=_restricted,
    lies=(
        Lie(what="its policy is put in the stage's place", behind=lambda scene, _: scene.put(scene.copy, scene.POLICY)),
        Lie(what="the stage before is put back", behind=lambda scene, _: scene.put(scene.copy, scene.nothing)),
        Lie(
            what="it is held again",
            behind=lambda scene, _: scene.hold(),
            mend=lambda scene: scene.let_go(Level.FREEZE),
        ),
        Lie(
            what="putting is answered and not done",
            part="gateway",
            about=asked("PUT", "/policies/"),
            answer=_as_it_is,
        ),
        Lie(
            what="the gateway drafts nothing narrower and says that it denies",
            part="gateway",
            about=asked("POST", "/draft"),
            answer=_wide,
        ),
    ),
    reads=("core", "gateway"),
    undone=lambda scene, _: scene.decides_by(scene.copy) == scene.nothing,
    revert_lies=(
        Lie(what="its policy is put", behind=lambda scene, _: scene.put(scene.copy, scene.POLICY)),
        Lie(
            what="reverting is answered and not done",
            part="gateway",
            about=asked("POST", "/restore"),
            answer=_as_it_is,
        ),
    ),
    revert_reads=("gateway",),
)
