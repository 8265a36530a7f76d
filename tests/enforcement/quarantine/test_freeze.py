"""Frozen, an agent does nothing at all; released, it goes on where it was."""

from __future__ import annotations

import time

import pytest

from clawback.enforcement.quarantine import freeze
from clawback.model import Enforcement, Level

pytestmark = pytest.mark.kernel

COUNT = "while True: board[0] += 1"
THREADS = """
def spin(n):
    while True: board[n] += 1
for n in range(1, 8): threading.Thread(target=spin, args=(n,)).start()
while True: board[0] += 1
"""
FORKS = """
while True:
    pid = os.fork()
    if pid == 0:
        board[0] += 1
        os._exit(0)
    os.waitpid(pid, 0)
"""
FORK_AND_RUN_AWAY = """
if os.fork():
    while True: time.sleep(100)  # the agent itself stays; what it started runs away
os.fork(); os.fork()
while True:
    board[0] += 1
    try:
        if os.fork(): os._exit(0)
    except OSError:  # nobody reaps while the first process is stopped: the limit is reached
        time.sleep(0.001)
"""
VFORKS = """
import subprocess
while True:
    subprocess.run(["/bin/true"])
    board[0] += 1
"""
ALL = {"one": COUNT, "threads": THREADS, "forks": FORKS, "orphans": FORK_AND_RUN_AWAY, "vforks": VFORKS}


def stands_still(board: memoryview) -> bool:
    before = bytes(board)
    end = time.monotonic() + 0.1
    while time.monotonic() < end:
        time.sleep(0.01)
    return bytes(board) == before


@pytest.mark.parametrize("agent", ALL.values(), ids=ALL.keys())
def test_frozen_agent_does_nothing_and_goes_on_after_release(make, agent):
    made = make(agent)
    made.moves()
    result = freeze.apply(made.box)
    assert result.level is Level.FREEZE
    assert result.enforcement is Enforcement.FULL, result
    assert "frozen" in result.observed
    assert stands_still(made.board)
    assert freeze.probe(made.box).enforcement is Enforcement.FULL
    released = freeze.release(made.box)
    assert released.enforcement is Enforcement.NONE, released
    made.moves()
    assert freeze.probe(made.box).enforcement is Enforcement.NONE


def test_freezing_twice_is_freezing_once(make):
    made = make(COUNT)
    made.moves()
    assert freeze.apply(made.box).enforcement is Enforcement.FULL
    assert freeze.apply(made.box).enforcement is Enforcement.FULL
    assert freeze.release(made.box).enforcement is Enforcement.NONE
    assert freeze.release(made.box).enforcement is Enforcement.NONE


@pytest.mark.parametrize("agent", ALL.values(), ids=ALL.keys())
def test_without_a_cgroup_signals_stop_it_and_the_result_says_so(make, agent):
    made = make(agent)
    box = made.without_cgroup()
    made.moves()
    result = freeze.apply(box, make.run)
    assert result.enforcement is Enforcement.PARTIAL, result
    assert "no cgroup" in result.missing[0]
    assert stands_still(made.board)
    assert freeze.release(box).enforcement is Enforcement.NONE
    made.moves()


def test_an_ended_sandbox_is_said_to_have_ended(make):
    made = make("pass")
    from clawback.enforcement.quarantine import tree

    make.wait_until(lambda: tree.gone(made.box), "it ends")
    for box in (made.box, made.without_cgroup()):
        result = freeze.apply(box)
        assert result.enforcement is Enforcement.FULL
        assert "ended" in result.observed
        assert "ended" in freeze.release(box).observed
