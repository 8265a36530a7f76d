"""agent.release: it is held again, or frozen without anybody's order, or never was let go."""

from __future__ import annotations

from pathlib import Path

from lies.answers import asked, yes
from lies.case import Case, Lie
from lies.ladder import level_result

from clawback.actions.agent_release import ACTION
from clawback.model import Level

_LEVELS = (Level.FREEZE, Level.ISOLATE)


def _before(scene):
    for level in _LEVELS:
        scene.true_core.contain(scene.agent, level, reason="to be let go", by="tester", incident=scene.incident_id)


def _hold(scene, _outcome):
    scene.true_core.contain(scene.agent, Level.FREEZE, reason="again", by="another", incident=scene.incident_id)


def _freeze(scene, _outcome):
    Path(scene.record()["cgroup"], "cgroup.freeze").write_text("1")


def _thaw(scene):
    Path(scene.record()["cgroup"], "cgroup.freeze").write_text("0")


def _runs(scene):
    return scene.true_core.agent(scene.agent).hold is None and not scene.stands_still(2.0)


CASE = Case(
    action=ACTION,
    scene="host",
    before=_before,
    params=lambda scene: {**scene.who, "reason": "a lie suite"},
    holds=lambda scene, _: _runs(scene),
    lies=(
        Lie(what="it is ordered held again", behind=_hold),
        Lie(what="it is frozen by the kernel's file", behind=_freeze, mend=_thaw),
        Lie(
            what="the core says released and does nothing",
            part="core",
            about=asked("POST", "/release"),
            answer=yes([level_result(level, "none") for level in _LEVELS]),
        ),
    ),
    reads=("core",),
    undone=lambda scene, _: all(scene.enforced(level) for level in _LEVELS) and scene.stands_still(),
    revert_lies=(
        Lie(what="it is let go again", behind=lambda scene, _: scene.let_go()),
        Lie(
            what="the core says frozen and does nothing",
            part="core",
            about=asked("POST", "/contain", '"freeze"'),
            answer=yes(level_result(Level.FREEZE)),
        ),
    ),
    revert_reads=("core",),
)
