"""The whole house on loopback, started once: every part a process, the issuers real."""

from __future__ import annotations

import itertools
import os
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

from clawback import config
from clawback.connectors.assemble import assemble
from clawback.enforcement.core.claims import unclaimed_uid_base
from clawback.journal import Journal
from clawback.model import AgentInfo, AgentState, Incident, IncidentStatus, LaunchSpec, Level, ReceiptState
from clawback.services.ministack import Ministack
from clawback.services.openbao import OpenBao
from clawback.services.stack import Stack
from clawback.world import World

POLICY = """\
apiVersion: openshell.nvidia.com/v1
kind: SandboxPolicy
metadata: {name: system}
spec:
  isolation: {network: restricted, filesystem: read-only, syscalls: default}
---
networkPolicy: {name: system, egress: {allow: []}}
"""

# Works quietly until told to go rogue, once: then it opens a canary, and goes on as if nothing had happened.
AGENT = """
import pathlib, time
told, done = pathlib.Path("rogue"), pathlib.Path("work/done")
while True:
    if told.exists() and not done.exists():
        done.touch()
        try:
            open("/root/.aws/credentials").read()
        except OSError:
            pass
    time.sleep(0.01)
"""


@dataclass
class House:
    """The parts, and what tests do with them."""

    state: Path
    config_file: Path
    settings: config.Settings
    bao: OpenBao
    aws: Ministack
    stack: Stack
    world: World
    journal: Journal
    numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    def launch(self, *, credentials: bool = True, parent: str = "", holds: tuple[Any, ...] = ()) -> AgentInfo:
        """`holds`: (reference, value) of credentials that are another's too."""
        agent = f"agent-{next(self.numbers)}"
        folder = self.state / "home" / agent
        (folder / "work").mkdir(parents=True)
        (folder / "work").chmod(0o777)
        (folder / "agent.py").write_text(AGENT)
        version = self.world.policies.put(agent, POLICY, author="test", reason="as reviewed", known_good=True)
        refs = self._issue(agent) if credentials else ()
        for ref, value in holds:
            self.world.secrets.put(agent, ref, value)
            refs += (ref,)
        return self.world.core.launch(
            LaunchSpec(
                agent=agent,
                command=(sys.executable, "agent.py"),
                policy=agent,
                policy_version=version.version,
                policy_text=POLICY,
                workdir=str(folder),
                readable=(str(folder),),
                writable=(str(folder / "work"),),
                credentials=refs,
                tags=("drill",),
                parent=parent,
            )
        )

    def _issue(self, agent: str) -> tuple[Any, ...]:
        token, grants = self.bao.provision(agent), self.aws.provision(agent)
        held = ((token.ref, token.token), (grants.key_ref, grants.key), (grants.session_ref, grants.session))
        for ref, value in held:
            self.world.secrets.put(agent, ref, value)
        return tuple(ref for ref, _ in held)

    def go_rogue(self, info: AgentInfo) -> None:
        (self.state / "home" / info.agent / "rogue").touch()

    def go_rogue_again(self, info: AgentInfo) -> None:
        """Whichever instance runs: it does once more what it was told once."""
        (self.state / "home" / info.agent / "work" / "done").unlink()

    def incident_of(self, info: AgentInfo) -> Incident | None:
        return next((found for found in self.journal.incidents() if found.instance == info.instance), None)

    def until(self, what: str, seen: Callable[[], Any], seconds: float = 60.0) -> Any:
        deadline = time.monotonic() + seconds
        while not (found := seen()):
            assert time.monotonic() < deadline, f"waited {seconds:g} s for {what}"
            time.sleep(0.005)
        return found

    def closed(self, info: AgentInfo, seconds: float = 60.0) -> Incident:
        def seen() -> Incident | None:
            found = self.incident_of(info)
            return found if found is not None and found.status is IncidentStatus.CLOSED else None

        try:
            return self.until(f"the end of {info.agent}'s incident", seen, seconds)
        except AssertionError as error:
            found = self.incident_of(info)
            left = [x for x in found.receipts if x.state is not ReceiptState.VERIFIED] if found else []
            said = "; ".join(f"{x.action} {x.state}: {x.error or x.proof}" for x in left)
            raise AssertionError(f"{error}: {said or (found and found.phase)}") from None

    def states(self, info: AgentInfo) -> dict[str, str]:
        found = self.incident_of(info)
        return {receipt.action: receipt.state.value for receipt in found.receipts} if found else {}

    def end(self, info: AgentInfo) -> None:
        if self.world.core.agent(info.agent).state is AgentState.RUNNING:
            self.world.core.contain(info.agent, Level.STOP, reason="the test is over", by="test")

    def command(self, *words: str) -> list[str]:
        return [sys.executable, "-m", "clawback", "--config", str(self.config_file), *words]


@pytest.fixture(scope="session")
def house() -> Iterator[House]:
    if os.geteuid() != 0:
        pytest.skip("the whole house is started as root; rootless drills are in tests/tabletop")
    state = Path(tempfile.mkdtemp(prefix="cb-", dir="/tmp"))
    state.chmod(0o755)
    try:
        with OpenBao(state / "openbao") as bao, Ministack(state / "ministack") as aws:
            file = state / "clawback.yaml"
            file.write_text(
                yaml.safe_dump(
                    {
                        "state": str(state),
                        "core": {
                            "cgroup": f"clawback-{state.name}",
                            "uid_base": unclaimed_uid_base(),
                            "heartbeat_seconds": 1,
                        },
                        # These incidents are to end by themselves; test_approvals.py has one that waits.
                        "approvals": {"rules": [{"actions": ["recovery.permit"]}, {"actions": ["*"], "quorum": 0}]},
                        "recovery": {"observe_seconds": 0.3, "restricted_seconds": 0.3},
                        "vault": {
                            "address": bao.address,
                            "token_file": str(bao.token_file),
                            "audit_log": str(bao.audit_log),
                        },
                        "aws": {
                            "region": aws.region,
                            "endpoint_url": aws.endpoint_url,
                            "credentials_file": str(aws.credentials_file),
                        },
                    }
                )
            )
            settings = config.load(file)
            with Stack(settings, config_file=file) as stack:
                over = threading.Event()
                tending = threading.Thread(target=lambda: _tend(stack, over), daemon=True)
                tending.start()
                found = House(
                    state=state,
                    config_file=file,
                    settings=settings,
                    bao=bao,
                    aws=aws,
                    stack=stack,
                    world=assemble(settings),
                    journal=Journal(settings.journal),
                )
                yield found
                for info in found.world.core.agents():
                    found.end(info)
                over.set()
                tending.join()
    finally:
        shutil.rmtree(state, ignore_errors=True)


def _tend(stack: Stack, over: threading.Event) -> None:
    while not over.wait(0.05):
        stack.tend()
