"""agent.relaunch: the new instance is gone, or never was."""

from __future__ import annotations

import dataclasses
import os
import signal

from lies.answers import asked
from lies.case import Case, Lie
from lies.liar import Answer
from lies.scenes import until

from clawback.actions.agent_relaunch import ACTION
from clawback.enforcement.core import wire


def _kill(scene, _outcome):
    os.kill(scene.record()["pid"], signal.SIGKILL)
    until(lambda: scene.true_core.agent(scene.agent).state.value != "running", what="the new instance's end")


def _runs(scene):
    info = scene.true_core.agent(scene.agent)
    return info.instance != scene.instance and info.state.value == "running" and not scene.stands_still(2.0)


class _MadeUp:
    """A new instance, in words."""

    def __init__(self):
        self.scene = None

    def note(self, scene):
        self.scene = scene

    def __call__(self, _request):
        new = dataclasses.replace(self.scene.info, instance=self.scene.instance + "-new")
        return Answer(wire.AGENT.dump_json(new))


_made_up = _MadeUp()

CASE = Case(
    action=ACTION,
    scene="host",
    before=_made_up.note,
    params=lambda scene: {**scene.who, "reason": "a lie suite"},
    holds=lambda scene, _: _runs(scene),
    lies=(
        Lie(what="the new instance is killed", behind=_kill),
        Lie(
            what="the core says relaunched and does nothing",
            part="core",
            about=asked("POST", "/relaunch"),
            answer=_made_up,
        ),
    ),
    reads=("core",),
)
