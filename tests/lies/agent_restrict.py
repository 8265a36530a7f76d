"""agent.restrict: those that refuse its opens are killed, or never were."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

from lies.case import Lie
from lies.ladder import ladder

from clawback.actions.agent_restrict import ACTION
from clawback.enforcement.quarantine import holder
from clawback.model import Level


def _kill_the_holder(scene, _outcome):
    record = Path(scene.record()["folder"], holder.RECORD)
    pids = json.loads(record.read_text())["pids"]
    os.killpg(os.getpgid(int(next(iter(pids)))), signal.SIGKILL)


CASE = ladder(
    ACTION, Level.RESTRICT, Lie(what="what refuses is killed", drifts=True, behind=_kill_the_holder, races=True)
)
