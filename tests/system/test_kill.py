"""SIGKILL at every step of the journal, to the flow, to watch, to the core: the response ends closed, nothing twice.

One incident for each process. Whenever the journal shows a step that it did not show before (a receipt in a new state,
a new phase), that process is killed and comes back by itself. So every step is followed by a kill, and each start has
to find out from the journal and the actual state what is done.
"""

from __future__ import annotations

import os
import signal
import time
from collections import Counter
from pathlib import Path

import boto3
import pytest

from clawback.model import IncidentStatus

pytestmark = [pytest.mark.kernel, pytest.mark.parts, pytest.mark.slow]

PROCESSES = ("responder", "watch", "core")


def responder_pid(house) -> int:
    """The flow's process: watch's child."""
    watch = house.stack.watch.pid
    children = Path(f"/proc/{watch}/task/{watch}/children")
    found = [
        int(pid) for task in Path(f"/proc/{watch}/task").iterdir() for pid in (task / "children").read_text().split()
    ]
    del children
    for pid in found:
        if b"clawback.orchestrate" in Path(f"/proc/{pid}/cmdline").read_bytes():
            return pid
    return 0


def kill(house, process) -> bool:
    if process == "responder":
        try:
            pid = responder_pid(house)
        except FileNotFoundError:
            return False
        if not pid:
            return False
        os.kill(pid, signal.SIGKILL)
        return True
    service = getattr(house.stack, process)
    if not service.running:
        return False
    os.kill(service.pid, signal.SIGKILL)
    return True


def steps(incident) -> frozenset:
    receipts = {(receipt.key, receipt.action, receipt.state) for receipt in incident.receipts}
    return frozenset(receipts | {entry.what for entry in incident.timeline if entry.what.startswith("phase ")})


@pytest.mark.parametrize("process", PROCESSES)
def test_killed_at_every_step(house, process):
    info = house.launch()
    house.go_rogue(info)
    incident = house.until("an incident", lambda: house.incident_of(info))
    seen: set = set()
    kills: Counter[str] = Counter()
    deadline = time.monotonic() + 420
    while incident.status is not IncidentStatus.CLOSED:
        assert time.monotonic() < deadline, (process, kills, house.states(info))
        new = steps(incident) - seen
        if new and kill(house, process):
            seen |= steps(incident)
            kills[process] += 1
        time.sleep(0.001)
        incident = house.incident_of(info)
    assert kills[process] >= 10, "it was hardly killed at all"
    assert set(house.states(info).values()) == {"verified"}
    once(house, info, incident)
    house.end(info)


def once(house, info, incident) -> None:
    """No effect twice: one of each receipt, one new key, one new token, one restored policy version, one relaunch."""
    keys = Counter((receipt.action, receipt.key) for receipt in incident.receipts)
    assert max(keys.values()) == 1
    iam = boto3.client(
        "iam",
        endpoint_url=house.aws.endpoint_url,
        region_name=house.aws.region,
        aws_access_key_id=house.aws.access_key_id,
        aws_secret_access_key=house.aws.secret_access_key,
    )
    assert len(iam.list_access_keys(UserName=info.agent)["AccessKeyMetadata"]) == 1
    assert len(house.world.vault.token_find({"agent": info.agent})) == 1
    assert len(house.world.policies.versions(info.agent)) == 1, "the active text was the known-good one throughout"
    instances = [path for path in (house.state / "agents" / info.agent).iterdir() if path.is_dir()]
    assert len(instances) == 2
