"""Without root a supervisor decides, and makes calls in the agent's name, all the same."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

pytestmark = [pytest.mark.kernel, pytest.mark.slow]

SCRIPT = """
import json, os, subprocess, sys, time
from pathlib import Path
from clawback.enforcement.policy.calls import CallAction, CallRule, SyscallPolicy
from clawback.enforcement.policy.escalation import Decision, EscalationRule
from clawback.enforcement.policy.types import SandboxPolicy
from clawback.enforcement.sandbox.spawner import Spawner
from clawback.enforcement.supervise.link import SupervisorLink
from clawback.enforcement.supervise.client import SupervisorClient
from clawback.errors import Unreachable
from clawback.model import LaunchSpec

AGENT = '''
import errno, os, socket
def tried(action, *arguments):
    try: action(*arguments)
    except OSError as error: return errno.errorcode[error.errno]
    return "ok"
with open("/tmp/new", "w") as file: file.write("text")
print(open("/tmp/new").read(), tried(socket.socket().connect, ("127.0.0.1", 3128)),
      tried(socket.socket().connect, ("127.0.0.1", 1)), tried(os.getpgid, 0))
'''
state = Path(sys.argv[1])
state.mkdir()
calls = SyscallPolicy(rules=(CallRule(names=("openat", "connect", "getpgid"), action=CallAction.ESCALATE),))
policy = SandboxPolicy(name="p", syscalls=calls, filesystem="read-write", escalations=(
    EscalationRule(names=("openat",), decision=Decision.ALLOW),
    EscalationRule(names=("connect",), decision=Decision.ALLOW, addresses=("127.0.0.1:3128",)),
    EscalationRule(names=("connect",), decision=Decision.DENY),
))
link = SupervisorLink(state)
client = SupervisorClient(state)
spec = LaunchSpec(agent="alpha", command=(sys.executable, "-c", AGENT), policy="p", policy_version=1, policy_text="")
with Spawner.start(state, spares=0) as spawner:
    launched = spawner.launch(spec, policy, secrets={}, prepared=lambda box: link.attach(box) or os._exit(3))
    deadline = time.monotonic() + 20
    while not (asks := client.escalations()):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    outcome = client.answer(asks[0]["id"], allow=True, by="x", reason="y")["outcome"]
    status = launched.wait(20)
    output = Path(launched.record.folder, "output.log").read_text()
    launched.close()
os.kill(client.status()["pid"], 15)
link.close()
print(json.dumps({"output": output, "outcome": outcome, "status": status}))
"""


def test_a_supervisor_of_ones_own(as_user, home: Path) -> None:
    done = as_user("-c", SCRIPT, str(home / "state"))
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout.splitlines()[-1])
    assert said == {"output": "text ok EPERM ok\n", "outcome": "let go", "status": 0}
