"""policy.restore: another text is decided by, whether it was put, edited in, or never taken away."""

from __future__ import annotations

import dataclasses
import json

from lies.answers import asked
from lies.case import Case, Lie
from lies.liar import Answer
from lies.scenes import until

from clawback.actions.policy_restore import ACTION


def _put(scene, _outcome=None):
    scene.true_policies.put(scene.agent, scene.WIDER, author="somebody", reason="quick fix")


def _put_back(scene, _outcome):
    scene.true_policies.put(scene.agent, scene.WIDE, author="somebody", reason="it was needed")


def _edit(scene, _outcome):
    """The file that is there to be edited."""
    file = scene.store_folder / "current.yaml"
    file.write_text(scene.WIDER)
    until(lambda: _decides(scene) == scene.WIDER, what="the gateway to take the edit")


def _decides(scene):
    return scene.true_policies.read(scene.agent, scene.true_policies.active(scene.agent).version)


_seen = []


def _as_if(version):
    """The version that would have come of it, and did not."""

    def answer(_request):
        scene = _seen[-1]
        made_up = dataclasses.replace(scene.true_policies.versions(scene.agent)[version - 1], version=99)
        return Answer(json.dumps(dataclasses.asdict(made_up)).encode())

    return answer


CASE = Case(
    action=ACTION,
    scene="policies",
    before=_seen.append,
    params=lambda scene: {"policy": scene.agent, "reason": "a lie suite"},
    holds=lambda scene, _: _decides(scene) == scene.GOOD,
    lies=(
        Lie(what="another text is put", behind=_put),
        Lie(what="the text that was taken away is put", drifts=True, behind=_put_back),
        Lie(what="the file is swapped", behind=_edit),
        Lie(
            what="restoring is answered and not done",
            part="gateway",
            about=asked("POST", "/restore"),
            answer=_as_if(1),
        ),
    ),
    reads=("gateway",),
    undone=lambda scene, _: _decides(scene) == scene.WIDE,
    revert_lies=(
        Lie(what="another text is put", behind=_put),
        Lie(
            what="reverting is answered and not done",
            part="gateway",
            about=asked("POST", "/restore"),
            answer=_as_if(2),
        ),
    ),
    revert_reads=("gateway",),
)
