"""An agent's processes as a tree."""

from __future__ import annotations

import os

import pytest

from clawback.enforcement.telemetry.family import family
from clawback.model import Level

pytestmark = pytest.mark.kernel

WORKERS = """
import os, subprocess, sys, time
token = 'hvs.' + 'A' * 30
worker = subprocess.Popen(['/bin/sh', '-c', ': ' + token + '; sleep 600 & wait'])
print('ready', flush=True)
time.sleep(600)
"""


def test_workers_and_what_they_started_stand_below_their_parents(core):
    info, out = core.launch(WORKERS)
    with os.fdopen(out) as said:
        assert said.readline() == "ready\n"
    box = next(one for one in core.records() if one.agent == info.agent)
    core.until(lambda: any(one.command == "sleep 600" for one in family(box)))
    members = family(box)
    first = members[0]
    assert (first.pid, first.parent, first.depth) == (box.pid, 0, 0)
    sleep = next(one for one in members if one.command == "sleep 600")
    known = {one.pid: one for one in members}
    chain = [sleep]
    while chain[-1].parent:
        chain.append(known[chain[-1].parent])
        assert chain[-1].depth == chain[-2].depth - 1
    assert chain[-1] == first
    assert any("/bin/sh" in one.command for one in chain)
    assert "hvs.A" not in str(members)
    core.client.contain(info.agent, Level.STOP, reason="test", by="test")
    core.until(lambda: family(box) == ())
