"""Who has a connection open, of real processes that share it, hide it, pass it on and go away."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from clawback.enforcement.core.identify import Identifier
from clawback.enforcement.kernel import sock_diag
from clawback.enforcement.sandbox.record import Sandbox
from clawback.errors import NotFound

pytestmark = [
    pytest.mark.kernel,
    pytest.mark.slow,
    pytest.mark.skipif(os.geteuid() != 0, reason="another's network namespace is entered with root"),
]

START = """
import ctypes, os, socket, subprocess, sys, threading, time
from clawback.enforcement.kernel.libc import CLONE_NEWNET, unshare
from clawback.enforcement.kernel.namespaces import loopback
unshare(CLONE_NEWNET)
loopback(up=True)
server = socket.create_server(("::", 3128), family=socket.AF_INET6, dualstack_ipv6=True)
def connect(host="127.0.0.1"):
    global taken
    mine = socket.create_connection((host, 3128))
    taken, peer = server.accept()
    taken.set_inheritable(False)
    return mine, peer
def ready(peer, *more):
    print(peer[0], peer[1], *more, flush=True)
    sys.stdin.readline()
"""


@pytest.fixture
def run() -> Iterator:
    """Runs code after START in a tree of its own: the first process is the sandbox's, the code is its child's."""
    started: list[subprocess.Popen[str]] = []

    def go(code: str) -> tuple[Sandbox, list[str], subprocess.Popen[str]]:
        outer = f"import subprocess, sys; sys.exit(subprocess.run([sys.executable, '-c', {START + code!r}]).returncode)"
        process = subprocess.Popen(
            [sys.executable, "-c", outer], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            start_new_session=True,
        )  # fmt: skip
        started.append(process)
        assert process.stdout
        words = process.stdout.readline().split()
        inner = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()[0]
        # Its namespace is the child's own, so the record says the child's for the network and the tree is below it.
        ticks = int(Path(f"/proc/{inner}/stat").read_text().rsplit(")", 1)[1].split()[19])
        box = Sandbox(
            agent="a", instance="a-1", pid=int(inner), start_ticks=ticks, shim_pid=0, shim_start_ticks=0, uid=0,
            cgroup="", folder="", policy="", policy_version=1, command=(), started_ns=0,
        )  # fmt: skip
        return box, words, process

    yield go
    for process in started:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(10)
        for pipe in (process.stdin, process.stdout):
            if pipe:
                pipe.close()


def ends(words: list[str]) -> tuple[tuple[str, int], tuple[str, int]]:
    return (words[0], int(words[1])), ("::ffff:127.0.0.1" if "." in words[0] else "::1", 3128)


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "::ffff:127.0.0.1"])
def test_the_one_that_connected(run, host):
    box, words, _ = run(f"mine, peer = connect({host!r}); ready(peer)")
    (holder,) = Identifier().holders(box, *ends(words))
    assert holder.pid == box.pid
    assert holder.program.path == os.path.realpath(sys.executable)
    assert len(holder.program.sha256) == 64


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "::ffff:127.0.0.1"])
def test_both_ways_of_asking_say_the_same(run, host):
    box, words, _ = run(f"mine, peer = connect({host!r}); ready(peer, os.fstat(mine.fileno()).st_ino)")
    tables = [Path(f"/proc/{box.pid}/net/{kind}").read_text() for kind in ("tcp", "tcp6")]
    found = []
    for table in tables:
        try:
            found.append(sock_diag.listed_inode_of(table, *ends(words)))
        except ProcessLookupError:
            continue
    assert found == [int(words[2])]


def test_all_that_share_it_with_whom_they_come_from(run):
    box, words, _ = run(
        "mine, peer = connect(); mine.set_inheritable(True)\n"
        "one = subprocess.Popen(['/bin/sh', '-c', 'sleep 1000 & wait'], close_fds=False)\n"
        "while len(open(f'/proc/{one.pid}/task/{one.pid}/children').read().split()) < 1: pass\n"
        "child = open(f'/proc/{one.pid}/task/{one.pid}/children').read().split()[0]\n"
        "while 'sleep' not in os.readlink(f'/proc/{child}/exe'): pass\n"
        "ready(peer, one.pid, child)"
    )
    holders = {holder.pid: holder for holder in Identifier().holders(box, *ends(words))}
    shell, sleep = int(words[2]), int(words[3])
    assert set(holders) == {box.pid, shell, sleep}
    assert [one.path for one in holders[sleep].ancestors] == [os.path.realpath("/bin/sh")]
    assert holders[shell].ancestors == ()  # the sandbox's own first process is nobody's program


def test_a_thread_with_descriptors_of_its_own_hides_nothing(run):
    box, words, _ = run(
        "import queue\nfound = queue.Queue()\n"
        "def hide():\n"
        "    assert ctypes.CDLL(None).unshare(0x400) == 0\n"  # CLONE_FILES
        "    found.put(connect())\n"
        "    time.sleep(1000)\n"
        "threading.Thread(target=hide, daemon=True).start()\n"
        "mine, peer = found.get()\n"
        "ready(peer)"
    )
    assert [holder.pid for holder in Identifier().holders(box, *ends(words))] == [box.pid]


def test_one_that_is_closed_or_was_never_there_is_nobodys(run):
    box, words, _ = run("mine, peer = connect(); mine.close(); ready(peer)")
    identifier = Identifier()
    with pytest.raises(NotFound):
        identifier.holders(box, *ends(words))
    with pytest.raises(NotFound, match="cannot be seen"):
        identifier.holders(box, ("127.0.0.1", 1), ("127.0.0.1", 3128))


def test_handing_it_on_without_end_is_no_way_to_hide(run):
    """Each process forks one that goes on and ends: whoever is named has it open, or nobody is."""
    box, words, process = run(
        "mine, peer = connect()\n"
        "if os.fork() == 0:\n"
        "    while True:\n"
        "        if os.fork():\n"
        "            os._exit(0)\n"
        "fd = mine.detach(); os.close(fd)\n"
        "import signal; signal.signal(signal.SIGCHLD, signal.SIG_IGN)\n"
        "ready(peer)"
    )
    identifier = Identifier()
    for _ in range(20):
        try:
            holders = identifier.holders(box, *ends(words))
        except NotFound:
            continue
        assert box.pid not in {holder.pid for holder in holders}
    os.killpg(process.pid, signal.SIGKILL)
