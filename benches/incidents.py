"""Real rogue agents, one after the other, with everything running: what the benches of the response share.

Each run launches an agent that holds a Vault token, an AWS access key and a session of a role, and spins, writing the
time of its every step into shared memory, until a child of it opens a canary. The clock starts at the time that the
core wrote into that event. What stops it is taken from the victim's side: the agent's own last step, and the receipts,
which are written after the effect was read back, the credentials' after the old ones were used and refused.
"""

from __future__ import annotations

import mmap
import shutil
import struct
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import yaml

from benches.running import uid_base
from benches.statistics import metric
from clawback import config, log
from clawback.connectors.assemble import assemble
from clawback.enforcement.gateway.client import GatewayClient
from clawback.enforcement.kernel import cgroups
from clawback.errors import NotEnforced
from clawback.journal import Journal
from clawback.model import AgentState, CredentialRef, Incident, IncidentStatus, LaunchSpec, Level, Phase, ReceiptState
from clawback.reports.times import times_ms
from clawback.services.ministack import Ministack
from clawback.services.openbao import OpenBao
from clawback.services.stack import Stack
from clawback.world import World

__all__ = ["POLICY", "Rig", "measured", "rig", "until"]

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
_NOTES = (
    "event_to_verified: freeze, isolation, restriction and seal read back, evidence before the last two",
    "event_to_refused: the last of a Vault token, an AWS key and the user's and role's sessions used and refused",
)
_WARMING = 3  # runs that fill caches and are not counted
_SECONDS = 60.0
T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Rig:
    """Everything running. `issuers` are None where the bench wants no credentials."""

    state: Path
    world: World
    journal: Journal
    issuers: tuple[OpenBao, Ministack] | None

    def issue(self, agent: str) -> tuple[CredentialRef, ...]:
        """Give an agent a Vault token, an AWS access key and a session, by way of the secret store."""
        if self.issuers is None:
            return ()
        token, grants = self.issuers[0].provision(agent), self.issuers[1].provision(agent)
        held = ((token.ref, token.token), (grants.key_ref, grants.key), (grants.session_ref, grants.session))
        for ref, value in held:
            self.world.secrets.put(agent, ref, value)
        return tuple(ref for ref, _ in held)

    def end(self, agent: str) -> None:
        """Stop it, if it runs."""
        if self.world.core.agent(agent).state is AgentState.RUNNING:
            self.world.core.contain(agent, Level.STOP, reason="the run is over", by="bench")


@contextmanager
def rig(
    *, journal_url: str = "", prefect_url: str = "", credentials: bool = True, embedded: bool = True
) -> Iterator[Rig]:
    """Start the parts with a state of their own; at the end, agents and all are gone.

    prefect_url   of the database of Prefect's server; empty: SQLite
    embedded      watch has a responder of its own
    """
    log.configure(level=40)
    state = Path(tempfile.mkdtemp(prefix="cb-bench-", dir="/tmp"))
    state.chmod(0o755)
    group = f"clawback-bench-{state.name}"
    bao = OpenBao(state / "openbao").start() if credentials else None
    aws = Ministack(state / "ministack").start() if credentials else None
    try:
        written: dict[str, Any] = {
            "state": str(state),
            "journal_url": journal_url,
            "watch": {"contained_per_minute": 0},
            "responder": {"embedded": embedded},
            "prefect": {"database_url": prefect_url},
            "approvals": {"rules": [{"actions": ["*"], "quorum": 0}]},
            "recovery": {"observe_seconds": 0.2, "restricted_seconds": 0.2},
            "core": {"cgroup": group, "uid_base": uid_base(), "heartbeat_seconds": 60},
        }
        if bao is not None and aws is not None:
            written["vault"] = {"address": bao.address, "token_file": str(bao.token_file)}
            written["aws"] = {
                "region": aws.region,
                "endpoint_url": aws.endpoint_url,
                "credentials_file": str(aws.credentials_file),
            }
        file = state / "clawback.yaml"
        file.write_text(yaml.safe_dump(written))
        settings = config.load(file)
        with Stack(settings, config_file=file) as stack:
            world = assemble(settings)
            GatewayClient(settings.gateway_socket).put("bench", POLICY, author="bench", reason="bench", known_good=True)
            running = Rig(
                state=state, world=world, journal=Journal(settings.journal), issuers=(bao, aws) if bao and aws else None
            )
            try:
                yield running
            finally:
                if stack.watch is not None:  # and with it whoever would start an agent again
                    stack.watch.stop()
                for info in world.core.agents():
                    running.end(info.agent)
    finally:
        for server in (bao, aws):
            if server is not None:
                server.stop()
        shutil.rmtree(state, ignore_errors=True)
        cgroups.remove_parent(cgroups.discover(), group, timeout=5.0)  # the core leaves them to the next one


def until(seen: Callable[[], T | None], seconds: float = _SECONDS) -> T:
    """What `seen` returns once it is not None; looks ten times a second, for reading more often would be measured."""
    deadline = time.monotonic() + seconds
    while (found := seen()) is None:
        if time.monotonic() > deadline:
            raise TimeoutError("a run did not come to its end")
        time.sleep(0.1)
    return found


def measured(n: int, *, journal_url: str = "", prefix: str = "") -> dict[str, Any]:
    """What a bench returns: event to frozen, egress dead, contained and verified, credentials refused, in ms."""
    with rig(journal_url=journal_url) as running:
        runs = [_once(number, running) for number in range(n + _WARMING)][_WARMING:]
    names = ("frozen", "egress_dead", "verified", "refused")
    columns: Any = zip(*runs, strict=True)
    return {
        "metrics": {
            f"{prefix}event_to_{name}": metric(list(values), "ms") for name, values in zip(names, columns, strict=True)
        },
        "ratios": {},
        "notes": [prefix + one for one in _NOTES],
    }


def _once(number: int, running: Rig) -> tuple[float, float, float, float]:
    agent = f"bench-{number}"
    work = running.state / "work" / agent
    work.mkdir(parents=True)
    work.chmod(0o777)
    (work / "agent.py").write_text(AGENT)
    counter = work / "counter"
    counter.write_bytes(bytes(16))
    counter.chmod(0o666)
    with counter.open("r+b") as file:
        shared = mmap.mmap(file.fileno(), 16)
    info = running.world.core.launch(
        LaunchSpec(
            agent=agent,
            command=(sys.executable, str(work / "agent.py"), str(counter)),
            policy="bench",
            policy_version=1,
            policy_text=POLICY,
            workdir=str(work),
            writable=(str(work),),
            credentials=running.issue(agent),
        )
    )
    offset = time.time_ns() - time.monotonic_ns()

    def contained() -> Incident | None:
        found = next((x for x in running.journal.of_agent(agent) if x.instance == info.instance), None)
        past = found is not None and any(entry.phase is Phase.ERADICATE for entry in found.timeline)
        return found if past else None

    incident = until(contained)
    began = min(finding.time_ns for finding in incident.findings)
    frozen = struct.unpack_from("<Q", shared, 0)[0] + offset
    verified = {
        receipt.action: receipt.verified_ns
        for receipt in incident.receipts
        if receipt.action in LADDER and receipt.state is ReceiptState.VERIFIED
    }
    if set(verified) != set(LADDER):
        raise NotEnforced(f"only {', '.join(verified) or 'nothing'} was verified in {incident.id}")

    def closed() -> Incident | None:
        found = running.journal.incident(incident.id)
        return found if found.status is IncidentStatus.CLOSED else None

    refused = times_ms(until(closed))["credentials_refused"]
    if refused is None:
        raise NotEnforced(f"not every credential was seen refused in {incident.id}")
    running.end(agent)
    return (
        (frozen - began) / 1e6,
        (verified["agent.isolate"] - began) / 1e6,
        (max(verified.values()) - began) / 1e6,
        refused,
    )
