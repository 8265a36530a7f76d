"""An attempt proves what is denied for sure, not what a supervisor would have decided."""

from __future__ import annotations

import pytest

from clawback.enforcement.sandbox.attempt import attempt
from clawback.model import Attempt

pytestmark = [pytest.mark.kernel, pytest.mark.slow]


def test_what_is_only_escalated_is_not_called_denied(scene, policy):
    scene.supervise()
    agent = scene.launch("say(1); sys.stdin.readline()", policy("getpgid"))
    assert agent.hear() == 1
    asked, refused = attempt(
        scene.spawner,
        agent.record,
        [Attempt(kind="syscall", target="getpgid"), Attempt(kind="syscall", target="mount")],
    )
    assert not asked.denied
    assert refused.denied
