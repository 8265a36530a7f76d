"""SIGKILL at every step of the journal, to the flow, to watch, to the core: the response ends closed, nothing twice.

Whenever the journal shows a step that it did not show before (an intent, an effect, a proof, a phase), a process is
killed and comes back by itself, and each start has to find out from the journal and the actual state what is done. In
turn, one incident meets all three, killed at every fourth of its steps; with `CLAWBACK_KILL=each` (`make kill`) at
every one, and there is an incident for each process as well.
"""

from __future__ import annotations

import os
import signal
import time
from collections import Counter
from pathlib import Path

import boto3
import pytest

from clawback.model import IncidentStatus, ReceiptState

pytestmark = [pytest.mark.kernel, pytest.mark.parts, pytest.mark.slow]

PROCESSES = ("responder", "watch", "core")
EACH = os.environ.get("CLAWBACK_KILL") == "each"
TURNS = (PROCESSES, *((process,) for process in PROCESSES if EACH))
EVERY = 1 if EACH else 4
MADE = (ReceiptState.INTENDED, ReceiptState.APPLIED, ReceiptState.VERIFIED)


def responder_pid(house) -> int:
    """The flow's process: watch's child."""
    watch = house.stack.watch.pid
    found = [
        int(pid) for task in Path(f"/proc/{watch}/task").iterdir() for pid in (task / "children").read_text().split()
    ]
    for pid in found:
        if b"clawback.orchestrate" in Path(f"/proc/{pid}/cmdline").read_bytes():
            return pid
    return 0


def kill(house, process) -> bool:
    """Kill it if it is at work; one that is only just starting is let come up first."""
    if process == "responder":
        try:
            pid = responder_pid(house)
        except FileNotFoundError:  # watch has just ended
            return False
        if not pid:
            return False
        os.kill(pid, signal.SIGKILL)
        return True
    if not (house.settings.run / f"{process}.sock").exists() or not getattr(house.stack, process).running:
        return False
    (house.settings.run / f"{process}.sock").unlink()  # it is there again when the process is
    os.kill(getattr(house.stack, process).pid, signal.SIGKILL)
    return True


def steps(incident) -> frozenset:
    receipts = {(receipt.key, receipt.action, receipt.state) for receipt in incident.receipts if receipt.state in MADE}
    return frozenset(receipts | {entry.what for entry in incident.timeline if entry.what.startswith("phase ")})


@pytest.mark.parametrize("turn", TURNS, ids="-".join)
def test_killed_at_every_step(house, turn):
    info = house.launch()
    house.go_rogue(info)
    incident = house.until("an incident", lambda: house.incident_of(info))
    seen: set = set()
    kills: Counter[str] = Counter()
    deadline = time.monotonic() + (1500 if EACH else 500)
    while incident.status is not IncidentStatus.CLOSED:
        assert time.monotonic() < deadline, (kills, house.states(info))
        if len(steps(incident) - seen) >= EVERY and kill(house, turn[kills.total() % len(turn)]):
            seen |= steps(incident)
            kills[turn[kills.total() % len(turn)]] += 1
        time.sleep(0.001)
        incident = house.incident_of(info)
    assert all(kills[process] >= 3 for process in turn), kills
    assert set(house.states(info).values()) == {"verified"}
    house.until("the core's return", (house.settings.run / "core.sock").exists)
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
    assert len(instances) == 3, "the rogue one, the one observed, the one let go in full"
