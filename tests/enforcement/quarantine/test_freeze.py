"""Frozen, an agent does nothing at all; released, it goes on where it was."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from clawback.enforcement.quarantine import freeze, tree
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
MANY = """
threading.stack_size(65536)
def spin():
    while True: board[0] += 1; time.sleep(0.0005)
for n in range(60): threading.Thread(target=spin).start()
spin()
"""
BOMB = """
def spread():
    while True:
        board[0] += 1
        try:
            if os.fork() == 0 and os.fork(): os._exit(0)
        except OSError:
            time.sleep(0.001)
if os.fork() == 0: spread()
while True:
    try: os.waitpid(-1, 0)
    except OSError: time.sleep(0.01)
"""
INSIDE_THE_KERNEL = """
def pump(n, source, sink):
    while True:
        os.write(sink, os.read(source, 65536))
        board[n] += 1
ends = [os.pipe() for _ in range(4)]
os.write(ends[0][1], bytes(65536))
for n in range(4): threading.Thread(target=pump, args=(n, ends[n][0], ends[(n + 1) % 4][1])).start()
def sync():
    with open(os.path.dirname(sys.argv[1]) + "/data", "wb") as file:
        while True:
            file.seek(0); file.write(bytes(1 << 20)); file.flush(); os.fsync(file.fileno())
            board[5] += 1
sync()
"""
BESIDE_A_VFORK = """
import ctypes
def spin():
    while True: board[0] += 1
threading.Thread(target=spin).start()
libc, stack = ctypes.CDLL(None), ctypes.create_string_buffer(1 << 16)
top = ctypes.c_void_p((ctypes.addressof(stack) + (1 << 16) - 256) & ~15)
libc.clone(ctypes.cast(libc.pause, ctypes.c_void_p), top, 0x4000 | 0x100 | 17, None)  # CLONE_VFORK | CLONE_VM | SIGCHLD
"""
WITHOUT_ITS_FIRST_THREAD = """
import ctypes
def spin():
    while True: board[0] += 1
threading.Thread(target=spin).start()
ctypes.CDLL(None).syscall({"x86_64": 60, "aarch64": 93}[os.uname().machine], 0)  # exit, of this thread alone
"""
ALL = {
    "one": COUNT, "threads": THREADS, "forks": FORKS, "orphans": FORK_AND_RUN_AWAY, "vforks": VFORKS,
    "60 threads": MANY, "bomb": BOMB, "inside the kernel": INSIDE_THE_KERNEL,
    "beside a vfork": BESIDE_A_VFORK, "without its first thread": WITHOUT_ITS_FIRST_THREAD,
}  # fmt: skip


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
    make.wait_until(lambda: tree.gone(made.box), "it ends")
    for box in (made.box, made.without_cgroup()):
        result = freeze.apply(box)
        assert result.enforcement is Enforcement.FULL
        assert "ended" in result.observed
        assert "ended" in freeze.release(box).observed


STOPPED = """
child = os.fork()
while child == 0: board[1] += 1
os.kill(child, 19)
board[2] = child
while True: board[0] += 1
"""


def test_what_was_stopped_before_stays_so_and_is_counted(make):
    made = make(STOPPED)
    make.wait_until(lambda: made.board[2] > 0, "one is stopped")
    made.moves()
    result = freeze.apply(made.box)
    assert result.enforcement is Enforcement.FULL
    assert (result.counts["processes"], result.counts["frozen"]) == (3, 3)
    assert freeze.release(made.box).enforcement is Enforcement.NONE
    made.moves()
    before = made.board[1]
    made.moves()
    assert made.board[1] == before, "release is not SIGCONT"


def test_thawed_behind_its_back_is_seen(make):
    made = make(COUNT)
    made.moves()
    freeze.apply(made.box)
    Path(made.box.cgroup, "cgroup.freeze").write_text("0")
    made.moves()
    seen = freeze.probe(made.box)
    assert seen.enforcement is Enforcement.NONE
    assert (seen.counts["processes"], seen.counts["frozen"]) == (2, 0)
    assert freeze.apply(made.box).enforcement is Enforcement.FULL


def test_one_continued_behind_its_back_is_seen_without_a_cgroup(make):
    made = make(COUNT)
    box = made.without_cgroup()
    made.moves()
    freeze.apply(box, make.run)
    os.kill(max(tree.processes(made.box)), signal.SIGCONT)
    made.moves()
    seen = freeze.probe(box)
    assert seen.enforcement is Enforcement.NONE, seen
    assert seen.counts["frozen"] < seen.counts["processes"]


def test_one_that_left_the_group_behind_its_back_is_seen(make):
    made = make(COUNT)
    made.moves()
    freeze.apply(made.box)
    parent = Path(made.box.cgroup).parent
    moved = max(tree.processes(made.box))
    Path(parent, "cgroup.procs").write_text(str(moved))
    try:
        seen = freeze.probe(made.box)
        assert seen.enforcement is Enforcement.PARTIAL, seen
        assert seen.missing == (f"process {moved} is outside the frozen cgroup",)
        assert freeze.apply(made.box).enforcement is Enforcement.FULL
        assert moved in tree.processes(made.box)
    finally:
        Path(made.box.cgroup, "cgroup.procs").write_text(str(moved))
