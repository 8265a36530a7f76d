"""policy.tighten: what was taken out is put back, or the gateway says yes and keeps its text, or drafts one as wide."""

from __future__ import annotations

from lies.answers import asked
from lies.case import Case, Lie
from lies.scenes import until
from lies.staged import as_it_is, wide_draft

from clawback.actions.policy_tighten import ACTION

_as_it_is, _wide = as_it_is("agent"), wide_draft()


def _before(scene):
    _as_it_is.note(scene)
    _wide.note(scene)


def _edit(scene, _outcome):
    """The file that is there to be edited."""
    (scene.state / "policies" / scene.agent / "current.yaml").write_text(scene.WIDER)
    until(lambda: scene.decides_by(scene.agent) == scene.WIDER, what="the gateway to take the edit")


def _narrower(scene, _receipt):
    return not scene.allowed(scene.agent, scene.rogue) and scene.allowed(scene.agent, scene.used)


CASE = Case(
    action=ACTION,
    scene="staged",
    before=_before,
    params=lambda scene: {"policy": scene.agent, "reason": "a lie suite"},
    holds=_narrower,
    lies=(
        Lie(
            what="the text from before is put",
            drifts=True,
            behind=lambda scene, _: scene.put(scene.agent, scene.POLICY),
        ),
        Lie(what="the file is swapped", behind=_edit),
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
    reads=("gateway",),
    undone=lambda scene, _: scene.decides_by(scene.agent) == scene.POLICY,
    revert_lies=(
        Lie(what="another text is put", behind=lambda scene, _: scene.put(scene.agent, scene.WIDER)),
        Lie(
            what="reverting is answered and not done",
            part="gateway",
            about=asked("POST", "/restore"),
            answer=_as_it_is,
        ),
    ),
    revert_reads=("gateway",),
)
