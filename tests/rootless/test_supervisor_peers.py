"""Without root an agent has the core's own user id: the supervisor's socket is not its to ask, nor to stand in for."""

from __future__ import annotations

import json

import pytest

pytestmark = pytest.mark.kernel

SCRIPT = """
import json, os, select, socket, sys
from pathlib import Path
from clawback.enforcement.kernel import libc
from clawback.enforcement.supervise.desk import Desk, trusted

path = Path(sys.argv[1]) / "desk.sock"

def other(work, *, away):
    # A process of the same user, away in a user namespace of its own as an agent is; it stays until its end is closed.
    ours, theirs = socket.socketpair()
    pid = os.fork()
    if pid == 0:
        ours.close()
        if away:
            libc.unshare(libc.CLONE_NEWUSER)
        kept = work()
        theirs.send(b"done")
        theirs.recv(1)
        os._exit(0)
    theirs.close()
    assert ours.recv(4) == b"done"
    return pid, ours

def connect():
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    sock.connect(str(path))
    return sock

seen = {}
desk = Desk(path)
for name, away in (("at home", False), ("agent", True)):
    pid, end = other(connect, away=away)
    seen[name] = desk.admit() is not None
    end.close()
    os.waitpid(pid, 0)
desk.close()
for name, away in (("our desk", False), ("forged desk", True)):
    pid, end = other(lambda: Desk(path), away=away)
    with connect() as sock:
        seen[name] = trusted(sock)
    end.close()
    os.waitpid(pid, 0)
print(json.dumps(seen))
"""


def test_an_agent_of_the_same_user_is_nobody_to_the_supervisor(as_user, home):
    done = as_user("-c", SCRIPT, str(home))
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {"at home": True, "agent": False, "our desk": True, "forged desk": False}
