"""The same against the real parts: every process that there is, killed at seeded moments, with issuers that hang.

A part that is killed is started again by `clawback up`'s own tending; the response goes on from the journal. At the end
nothing may be lost, doubled or falsely said, by the issuers' own records. `CLAWBACK_CHAOS` is the number of seeds, or
`all` of them.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from clawback.journal.audit import verify
from clawback.model import AgentState, IncidentStatus, ReceiptState

pytestmark = [
    pytest.mark.kernel,
    pytest.mark.parts,
    pytest.mark.slow,
    pytest.mark.skipif(not os.environ.get("CLAWBACK_CHAOS"), reason="half a minute or more a seed: `make chaos`"),
]

ASKED = os.environ.get("CLAWBACK_CHAOS", "all")
SEEDS = range(40 if ASKED == "all" else int(ASKED))
PARTS = ("responder", "watch", "core", "gateway", "prefect")
KILLS = 6


def _responder(house: Any) -> int:
    """Watch's child, where there is one."""
    try:
        tasks = list(Path(f"/proc/{house.stack.watch.pid}/task").iterdir())
        pids = [int(pid) for task in tasks for pid in (task / "children").read_text().split()]
        return next(pid for pid in pids if b"clawback.orchestrate" in Path(f"/proc/{pid}/cmdline").read_bytes())
    except (FileNotFoundError, ProcessLookupError, StopIteration):
        return 0


def _kill(house: Any, part: str) -> bool:
    service = getattr(house.stack, part, None)
    pid = _responder(house) if part == "responder" else service.pid if service and service.running else 0
    if pid:
        os.kill(pid, signal.SIGKILL)
    return bool(pid)


@contextmanager
def _hanging(service: Any, *, really: bool) -> Iterator[None]:
    if really:
        os.kill(service.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        if really:
            os.kill(service.pid, signal.SIGCONT)


@pytest.mark.parametrize("seed", SEEDS)
def test_killed_at_seeded_moments(house: Any, seed: int) -> None:
    chance = random.Random(seed)
    info = house.launch()
    house.go_rogue(info)
    kills: Counter[str] = Counter()
    for _ in range(KILLS):
        time.sleep(chance.uniform(0.0, 1.2))  # the moment is what is drawn
        hangs = chance.choice((None, None, house.bao.service, house.aws.service))
        with _hanging(hangs, really=hangs is not None):
            part = chance.choice(PARTS)
            kills[part] += _kill(house, part)
            if hangs is not None:
                time.sleep(chance.uniform(0.0, 2.5))
    incident = _closed(house, info)
    _tell(house)
    said = (seed, kills, [(x.action, x.state.value, x.error or x.proof[:120]) for x in incident.receipts])
    assert incident.status is IncidentStatus.CLOSED, said
    assert {receipt.state for receipt in incident.receipts} == {ReceiptState.VERIFIED}, said
    assert max(Counter(receipt.key for receipt in incident.receipts).values()) == 1, said
    with house.journal.reading() as connection:
        assert verify(connection)[1] == [], said
    keys = house.aws.client("iam").list_access_keys(UserName=info.agent)["AccessKeyMetadata"]
    assert [key["Status"] for key in keys if key["Status"] == "Active"] == ["Active"], (said, keys)
    # What replaced a token that the issuer no longer knew bears our own name for it alone.
    named = ({"agent": info.agent}, {"clawback_agent": info.agent})
    assert len({token for name in named for token in house.world.vault.token_find(name)}) == 1, said
    house.until("the core's return", (house.settings.run / "core.sock").exists)
    now = house.until("an answer of it", lambda: _agent(house, info.agent))
    assert now.state is AgentState.RUNNING, said
    assert now.instance != info.instance, said
    assert now.hold is None, said
    house.end(info)


def _tell(house: Any) -> None:
    """Shown where the test fails: the record of all that happened."""
    for incident in house.journal.incidents():
        print(incident.id, incident.playbook, incident.agent, incident.instance, incident.status)
        for found in incident.findings:
            print("  finding", found.detector, found.instance, found.summary)
        for receipt in incident.receipts:
            print("  receipt", receipt.key, receipt.state, receipt.attempts, receipt.error or receipt.proof)
        for line in incident.timeline:
            print("  line", line.at_ns, line.phase, line.what, line.detail)


def _closed(house: Any, info: Any) -> Any:
    """By itself; what failed in between is told to go on, as a person would tell it."""
    for _ in range(3):
        try:
            return house.closed(info, 90)
        except AssertionError:
            name = house.incident_of(info).id
            subprocess.run(house.command("resume", name), capture_output=True, timeout=120, check=False)
    return house.incident_of(info)


def _agent(house: Any, agent: str) -> Any:
    from clawback.errors import Unreachable

    try:
        return house.world.core.agent(agent)
    except Unreachable:
        return None
