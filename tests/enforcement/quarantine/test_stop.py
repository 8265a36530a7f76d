"""Stopped, no process of an agent is left, whatever it does."""

from __future__ import annotations

import pytest

from clawback.enforcement.quarantine import freeze, stop, tree
from clawback.model import Enforcement

pytestmark = pytest.mark.kernel

FORKS = """
import signal
signal.signal(signal.SIGTERM, signal.SIG_IGN)
for _ in range(4):
    if os.fork() == 0:
        while True:
            pid = os.fork()
            if pid == 0:
                board[0] += 1
                os._exit(0)
            os.waitpid(pid, 0)
while True: time.sleep(60)
"""


@pytest.mark.parametrize("frozen", [False, True], ids=["running", "frozen"])
@pytest.mark.parametrize("rootless", [False, True], ids=["cgroup", "no-cgroup"])
def test_nothing_is_left(make, frozen, rootless):
    made = make(FORKS)
    box = made.without_cgroup() if rootless else made.box
    made.moves()
    assert stop.probe(box).enforcement is Enforcement.NONE
    if frozen:
        freeze.apply(box)
    result = stop.apply(box)
    assert result.enforcement is Enforcement.FULL, result
    assert tree.gone(made.box)
    assert stop.probe(box).enforcement is Enforcement.FULL
    assert stop.apply(box).enforcement is Enforcement.FULL
    released = stop.release(box)
    assert released.enforcement is Enforcement.FULL
    assert "relaunch" in released.observed


def test_release_of_a_living_agent_claims_no_stop(make):
    made = make(FORKS)
    made.moves()
    assert stop.release(made.box).enforcement is Enforcement.NONE
