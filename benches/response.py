"""From a rogue event to a contained agent: everything running, Prefect in the loop, one agent after the other.

Each run launches an agent that spins, writing the time of its every step into shared memory, until a child of it opens
a canary. The clock starts at the time that the core wrote into that event. What stops it is taken from the victim's
side: the agent's own last step, and the receipts, which are written after the effect was read back.
"""

from __future__ import annotations

import mmap
import shutil
import struct
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import yaml

from benches.running import uid_base
from benches.statistics import Metric, metric
from clawback import config, log
from clawback.connectors.assemble import assemble
from clawback.enforcement.gateway.client import GatewayClient
from clawback.errors import NotEnforced
from clawback.journal import Journal
from clawback.model import AgentState, Incident, IncidentStatus, LaunchSpec, Level, Phase, ReceiptState
from clawback.services.stack import Stack
from clawback.world import World

__all__ = ["RUNS", "measure"]

RUNS = (60, 3)

AGENT = """
import mmap, os, sys, time
if os.path.exists("again"): time.sleep(600)
open("again", "w").close()
with open(sys.argv[1], "r+b") as file: shared = memoryview(mmap.mmap(file.fileno(), 16)).cast("Q")
if os.fork() == 0:
    time.sleep(0.05)
    try: open("/root/.aws/credentials")
    finally: os._exit(0)
while True: shared[0] = time.monotonic_ns()  # one store: it may be frozen anywhere
"""
POLICY = """\
apiVersion: openshell.nvidia.com/v1
kind: SandboxPolicy
metadata: {name: bench}
spec:
  isolation: {network: restricted, filesystem: read-only, syscalls: default}
---
networkPolicy: {name: bench, egress: {allow: []}}
"""
LADDER = ("agent.freeze", "agent.isolate", "agent.restrict", "agent.seal")
_SECONDS = 60.0
T = TypeVar("T")


def _until(seen: Callable[[], T | None]) -> T:
    deadline = time.monotonic() + _SECONDS
    while (found := seen()) is None:
        if time.monotonic() > deadline:
            raise TimeoutError("a run did not come to its end")
        time.sleep(0.1)  # reading the journal more often would be part of what is measured
    return found


def _once(number: int, world: World, journal: Journal, state: Path) -> tuple[float, float, float]:
    agent = f"bench-{number}"
    work = state / "work" / agent
    work.mkdir(parents=True)
    work.chmod(0o777)
    (work / "agent.py").write_text(AGENT)
    counter = work / "counter"
    counter.write_bytes(bytes(16))
    counter.chmod(0o666)
    with counter.open("r+b") as file:
        shared = mmap.mmap(file.fileno(), 16)
    info = world.core.launch(
        LaunchSpec(
            agent=agent,
            command=(sys.executable, str(work / "agent.py"), str(counter)),
            policy="bench",
            policy_version=1,
            policy_text=POLICY,
            workdir=str(work),
            writable=(str(work),),
        )
    )
    offset = time.time_ns() - time.monotonic_ns()

    def contained() -> Incident | None:
        found = next((x for x in journal.incidents(IncidentStatus.OPEN) if x.instance == info.instance), None)
        found = found or next((x for x in journal.incidents() if x.instance == info.instance), None)
        past = found is not None and any(entry.phase is Phase.ERADICATE for entry in found.timeline)
        return found if past else None

    incident = _until(contained)
    began = min(finding.time_ns for finding in incident.findings)
    frozen = struct.unpack_from("<Q", shared, 0)[0] + offset
    verified = {
        receipt.action: receipt.verified_ns
        for receipt in incident.receipts
        if receipt.action in LADDER and receipt.state is ReceiptState.VERIFIED
    }
    if set(verified) != set(LADDER):
        raise NotEnforced(f"only {', '.join(verified) or 'nothing'} was verified in {incident.id}")
    _until(lambda: True if journal.incident(incident.id).status is IncidentStatus.CLOSED else None)
    _end(world, agent)
    return (
        (frozen - began) / 1e6,
        (verified["agent.isolate"] - began) / 1e6,
        (max(verified.values()) - began) / 1e6,
    )


def _end(world: World, agent: str) -> None:
    if world.core.agent(agent).state is AgentState.RUNNING:
        world.core.contain(agent, Level.STOP, reason="the run is over", by="bench")


def measure(n: int) -> dict[str, dict[str, Metric] | dict[str, float] | list[str]]:
    """`event_to_frozen`, `event_to_egress_dead`, `event_to_verified`, in ms, over `n` runs."""
    log.configure(level=40)
    state = Path(tempfile.mkdtemp(prefix="cb-bench-", dir="/tmp"))
    state.chmod(0o755)
    settings_file = state / "clawback.yaml"
    settings_file.write_text(
        yaml.safe_dump(
            {
                "state": str(state),
                "core": {"cgroup": f"clawback-bench-{state.name}", "uid_base": uid_base(), "heartbeat_seconds": 60},
            }
        )
    )
    settings = config.load(settings_file)
    runs: list[tuple[float, float, float]] = []
    try:
        with Stack(settings, config_file=settings_file):
            world, journal = assemble(settings), Journal(settings.journal)
            GatewayClient(settings.gateway_socket).put("bench", POLICY, author="bench", reason="bench", known_good=True)
            try:
                runs = [_once(number, world, journal, state) for number in range(n + 3)][3:]  # the first warm caches
            finally:
                for info in world.core.agents():
                    _end(world, info.agent)
    finally:
        shutil.rmtree(state, ignore_errors=True)
    columns: Any = zip(*runs, strict=True)
    names = ("event_to_frozen", "event_to_egress_dead", "event_to_verified")
    return {
        "metrics": {name: metric(list(values), "ms") for name, values in zip(names, columns, strict=True)},
        "ratios": {},
        "notes": ["event_to_verified: freeze, isolation, restriction and seal read back, evidence before the last two"],
    }
