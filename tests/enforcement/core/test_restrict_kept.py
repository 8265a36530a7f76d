"""A restriction outlives the core, and one that somebody undoes behind its back is mended and reported."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest

from clawback.enforcement.kernel import capabilities
from clawback.enforcement.quarantine import holder
from clawback.model import Enforcement, Level, Lifecycle

pytestmark = [
    pytest.mark.kernel,
    pytest.mark.slow,
    pytest.mark.skipif(not capabilities.effective(capabilities.SYS_ADMIN), reason="refusing opens needs CAP_SYS_ADMIN"),
]

ORDER = {"reason": "test", "by": "tester"}
OPENS = """
import os, time
kept = open("/etc/passwd")
while True:
    try:
        open("/etc/passwd").close()
        os.write(1, b"open\\n")
    except OSError as error:
        os.write(1, b"%d\\n" % error.errno)
    time.sleep(0.01)
"""


def record(core):
    return Path(core.records()[0].folder, holder.RECORD)


def said(out: int) -> str:
    """The next whole line that it writes."""
    text = b""
    while not text.endswith(b"\n"):
        text += os.read(out, 1)
    return text.decode().strip()


def wait_for(out: int, what: str) -> None:
    """What was written before is read on the way."""
    for _ in range(100_000):
        if said(out) == what:
            return
    raise AssertionError(f"never {what}")


def test_holders_outlive_the_core_and_are_replaced_when_killed(core):
    info, out = core.launch(OPENS)
    wait_for(out, "open")
    result = core.client.contain(info.agent, Level.RESTRICT, **ORDER)
    assert result.counts["marks"] > 0, result
    wait_for(out, "1")
    core.end(signal.SIGKILL)
    assert [said(out) for _ in range(50)].count("open") == 0
    core.start()
    pids = json.loads(record(core).read_text())["pids"]
    os.killpg(os.getpgid(int(next(iter(pids)))), signal.SIGKILL)
    event = core.wait_for(lambda one: isinstance(one, Lifecycle) and "reasserted" in one.status, agent=info.agent)
    assert event.status.startswith("restrict")
    assert "the holder is gone" in event.message
    assert json.loads(record(core).read_text())["pids"] != pids
    assert core.client.probe(info.agent, Level.RESTRICT).counts["drift"] == 0
    left = core.client.release(info.agent, **ORDER)
    assert [one.enforcement for one in left] == [Enforcement.NONE]
    wait_for(out, "open")
    assert not record(core).exists()
