"""Every form of a policy file is launched under by the core, and what it says is what the agent meets."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from clawback.model import Enforcement, Level
from clawback.model.events import KernelActivity

pytestmark = [pytest.mark.kernel, pytest.mark.slow]

EXAMPLES = Path(__file__).parents[3] / "examples"
TRY = """
import ctypes, errno, json, os, socket, time
def tried(action, *arguments):
    try:
        action(*arguments)
    except OSError as error:
        return errno.errorcode[error.errno]
    return "ok"
seen = {}
"""


def ask(core: Any, name: str, script: str) -> tuple[dict[str, Any], Any]:
    """What the script saw as an agent under an example's policy."""
    text = (EXAMPLES / name).read_text()
    info, out = core.launch(TRY + script + "\nprint(json.dumps(seen))\ntime.sleep(300)", policy_text=text)
    with os.fdopen(out) as answers:
        line = answers.readline()
    assert line, "the agent said nothing"
    return json.loads(line), info


def test_a_seccomp_profile(core: Any) -> None:
    seen, info = ask(core, "seccomp.json", """
seen["pair"] = tried(socket.socketpair)
seen["v6"] = tried(socket.socket, socket.AF_INET6)
seen["v4"] = tried(socket.socket, socket.AF_INET)
""")  # fmt: skip
    assert seen == {"pair": "ENOSYS", "v6": "EPERM", "v4": "ok"}
    assert info.layers["seccomp"] is Enforcement.FULL
    event = core.wait_for(
        lambda one: isinstance(one, KernelActivity) and one.blocked and one.syscall == "socketpair", agent=info.agent
    )
    assert event.agent == info.agent


def test_an_openshell_document(core: Any) -> None:
    seen, info = ask(core, "openshell.yaml", """
seen["tmp"] = tried(lambda: open("/tmp/made", "w").close())
seen["usr"] = tried(lambda: open("/usr/made", "w").close())
seen["uid"] = os.getuid()
""")  # fmt: skip
    assert seen == {"tmp": "ok", "usr": seen["usr"], "uid": 1000}
    assert seen["usr"] in {"EROFS", "EACCES"}
    assert info.layers["landlock"] is not Enforcement.NONE


def test_a_preset(core: Any) -> None:
    seen, _ = ask(core, "preset.yaml", 'seen["tmp"] = tried(lambda: open("/tmp/made", "w").close())')
    assert seen["tmp"] in {"EROFS", "EACCES"}


def test_lists_with_decisions(core: Any) -> None:
    seen, info = ask(core, "escalate.yaml", """
seen["mkdir"] = tried(os.mkdir, "/tmp/x")
seen["gateway"] = tried(socket.create_connection, ("127.0.0.1", 3128), 5)
seen["mail"] = tried(socket.create_connection, ("127.0.0.1", 25), 5)
""")  # fmt: skip
    assert seen == {"mkdir": "EACCES", "gateway": "ok", "mail": "EPERM"}
    assert info.layers["escalation"] is Enforcement.FULL
    core.client.contain(info.agent, Level.STOP, reason="over", by="tester")
    core.end()
    # Nobody needs a supervisor now: it let go of its agent with the shim, and of the core with that.
    core.until(lambda: not (core.state / "run" / "supervisor.sock").exists(), why="the supervisor is still there")
