"""What leads out of a sandbox past its network: shut where it is the agent's alone, named where it is not."""

from __future__ import annotations

import errno
import os
import socket
from pathlib import Path

import pytest

from clawback.enforcement.quarantine import isolate, tree
from clawback.model import Enforcement

pytestmark = pytest.mark.kernel

# 0 writes that succeeded, 1 the last errno, 2 rounds
WRITE = """
import signal
signal.signal(signal.SIGPIPE, signal.SIG_IGN)
while True:
    try:
        os.write(1, b"x")
        board[0] += 1
    except OSError as error:
        board[1] = error.errno
    board[2] += 1
    time.sleep(0.001)
"""


@pytest.fixture
def null():
    descriptor = os.open("/dev/null", os.O_RDWR)
    yield descriptor
    os.close(descriptor)


def test_a_pipe_lent_at_launch_is_named(make, null):
    read, write = os.pipe()
    made = make(WRITE, stdio=(null, write, null))
    os.close(write)
    made.moves()
    for result in (isolate.apply(made.box), isolate.probe(made.box)):
        assert result.enforcement is Enforcement.PARTIAL, result
        agent = max(tree.processes(made.box))
        assert len(result.missing) == 1, result
        assert result.missing[0].startswith(f"process {agent} has pipe:[")
        assert "open as 1," in result.missing[0]
        assert result.counts["leads_out"] == 1
        assert result.counts["uncut"] == 0
    made.moves()
    os.close(read)  # with nobody to read, it leads nowhere
    assert isolate.probe(made.box).enforcement is Enforcement.FULL


def test_a_socket_that_the_agent_alone_holds_is_shut_down(make, null):
    ours, theirs = socket.socketpair()
    made = make(WRITE, stdio=(null, theirs.fileno(), null))
    theirs.close()
    made.moves()
    result = isolate.apply(made.box)
    assert result.enforcement is Enforcement.FULL, result
    make.wait_until(lambda: made.board[1] == errno.EPIPE, "its next write fails")
    ours.settimeout(5)
    while ours.recv(1 << 16):
        pass
    ours.close()


def test_a_socket_that_its_lender_uses_too_is_named_and_left(make, null):
    ours, theirs = socket.socketpair()
    made = make(WRITE, stdio=(null, theirs.fileno(), null))
    made.moves()
    result = isolate.apply(made.box)
    assert result.enforcement is Enforcement.PARTIAL
    assert "socket:[" in result.missing[0]
    ours.settimeout(5)
    assert ours.recv(1 << 16), "what the lender uses is not shut under it"
    made.moves()
    ours.close()
    theirs.close()


BY_PATH = """
path = os.path.dirname(sys.argv[1]) + "/door"
link = socket.socket(socket.AF_UNIX)
while code(link.connect, path): time.sleep(0.001)
link.setblocking(False)
while True:
    last = code(link.send, b"x")
    board[1] = 0 if last == errno.EAGAIN else last
    board[0] += 1
    time.sleep(0.001)
"""


def test_a_unix_socket_bound_outside_within_reach(make):
    made = make(BY_PATH)
    path = Path(made.box.folder).parents[2] / made.box.agent / "door"
    with socket.socket(socket.AF_UNIX) as door:
        door.bind(str(path))
        path.chmod(0o777)
        door.listen(8)
        inside, _ = door.accept()
        made.moves()
        result = isolate.apply(made.box)
        make.wait_until(lambda: made.board[1] == errno.EPIPE, "what it was connected by is shut")
        assert result.enforcement is Enforcement.PARTIAL
        assert result.missing == (f"the socket {str(path)!r}, bound outside, can be connected to",)
        assert result.counts["leads_out"] == 1
        path.chmod(0o700)
        assert isolate.probe(made.box).enforcement is Enforcement.FULL
        inside.close()


INSIDE = """
import subprocess
a, b = socket.socketpair()
name = socket.socket(socket.AF_UNIX); name.bind("\\0inside"); name.listen()
other = socket.socket(socket.AF_UNIX); other.connect("\\0inside")
third, _ = name.accept()
child = subprocess.Popen(["/bin/cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
board[0] = 1
time.sleep(1000)
"""


def test_what_stays_inside_is_the_agents_own(make):
    made = make(INSIDE)
    make.wait_until(lambda: made.board[0] == 1, "all are open")
    result = isolate.apply(made.box)
    assert result.enforcement is Enforcement.FULL, result
    assert result.counts["leads_out"] == 0
