"""Run one drill in this process's own network namespace, and tell what happens as JSON lines on stdout.

    python -m clawback.drills.theatre DRILL-FOLDER STATE HOST-NETWORK

Started by `clawback.drills.rehearse`, which made the namespace. Everything that an incident would meet in earnest runs
here as its own process, by the production code: the core, the gateway, watch, Prefect's server, and, as issuers of the
agent's credentials, OpenBao and ministack. Only the schedule is ours.

Lines: `{"stage": text, "ms"}` while it sets up, `{"at_ms", "phase", "what", "detail"}` as the incident goes, and last
one `{"outcome": …}` or `{"error": …, "hint": …}`.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from clawback import config, log
from clawback.connectors.assemble import assemble
from clawback.drills.counters import Counters
from clawback.drills.declaration import Drill, load
from clawback.drills.house import write_settings
from clawback.drills.judge import Seen, problems
from clawback.drills.prompter import Prompter
from clawback.drills.surroundings import Sink, loopback_up
from clawback.drills.tools import Tools
from clawback.enforcement.core.client import CoreClient
from clawback.errors import ClawbackError, NotEnforced, NotFound
from clawback.journal import Journal
from clawback.model import (
    AgentInfo,
    AgentState,
    ApprovalState,
    CredentialRef,
    Incident,
    IncidentStatus,
    LaunchSpec,
    Level,
)
from clawback.reports.summary import record
from clawback.reports.times import first_event_ns
from clawback.services.ministack import Ministack
from clawback.services.openbao import OpenBao
from clawback.services.stack import Stack
from clawback.world import World

__all__: list[str] = []

ROUNDS_BEFORE = 10
_SETUP_SECONDS = 60.0
_POLL_SECONDS = 0.01


def _tell(**line: Any) -> None:
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


@contextmanager
def _stage(name: str) -> Iterator[None]:
    began = time.monotonic()
    yield
    _tell(stage=name, ms=round((time.monotonic() - began) * 1e3))


def _until(what: str, seconds: float, seen: Any) -> Any:
    deadline = time.monotonic() + seconds
    while not (found := seen()):
        if time.monotonic() > deadline:
            raise NotEnforced(
                f"the drill waited {seconds:g} s for {what} in vain", hint="see the logs that --keep keeps"
            )
        time.sleep(_POLL_SECONDS)
    return found


class _Theatre:
    def __init__(self, drill: Drill, state: Path, host_network: Path) -> None:
        self.drill, self.state, self.host_network = drill, state, host_network
        self.shared = state / "shared"
        for folder in ("inbox", "work"):
            (self.shared / folder).mkdir(parents=True)
        (self.shared / "work").chmod(0o777)
        self.counters = Counters(self.shared / "work" / "counters")
        self.ports: dict[str, str] = {}

    # -- setting up ----------------------------------------------------------------------------------------------------

    def run(self) -> dict[str, Any]:
        with ExitStack() as running:
            loopback_up()
            sink: Sink | None = None
            if self.drill.world.sink:
                with _stage("private network, with a sink in another"):
                    sink = running.enter_context(Sink(self.state))
            if self.drill.world.tools:
                running.enter_context(Tools())
            with _stage("OpenBao"):
                bao = running.enter_context(OpenBao(self.state / "openbao"))
            with _stage("ministack (AWS IAM, enforced)"):
                aws = running.enter_context(Ministack(self.state / "ministack"))
            self.ports = {"vault": bao.address.rpartition(":")[2], "aws": aws.endpoint_url.rpartition(":")[2]}
            settings, file = write_settings(self.drill, self.state, bao, aws)
            with _stage("core, gateway, watch and Prefect's server"):
                stack = running.enter_context(Stack(settings, config_file=file, host_network=self.host_network))
            for line in stack.describe():
                _tell(stage=f"  {line}", ms=None)
            sources = CoreClient(settings.core_socket).health()["telemetry"]
            if lacking := [f"{name} ({how})" for name, how in sources.items() if how != "on"]:
                _tell(stage=f"  telemetry without {', '.join(lacking)}", ms=None)
            world = assemble(settings)
            running.callback(self._clear, world)
            with _stage("credentials issued, policy version 1 marked known-good, agent launched"):
                instance = self._launch(world, self._issue(world, bao, aws), bao, aws)
            with _stage(f"the agent worked normally, {ROUNDS_BEFORE} rounds"):
                _until("the agent's normal work", _SETUP_SECONDS, lambda: self.counters.read()[0] >= ROUNDS_BEFORE)
            return self._rehearse(settings, file, world, sink, instance)

    def _issue(self, world: World, bao: OpenBao, aws: Ministack) -> tuple[CredentialRef, ...]:
        """Give the agent a Vault token, an AWS key and a session of a role, by way of the secret store."""
        agent = self.drill.agent.id
        token, grants = bao.provision(agent), aws.provision(agent)
        token_ref = token.ref
        if self.drill.agent.placeholder:
            token_ref = replace(
                token_ref, delivery="placeholder", hosts=(f"http://vault.internal:{self.ports['vault']}",)
            )
        held = ((token_ref, token.token), (grants.key_ref, grants.key), (grants.session_ref, grants.session))
        for ref, value in held:
            world.secrets.put(agent, ref, value)
        return tuple(ref for ref, _ in held)

    def _launch(self, world: World, credentials: tuple[CredentialRef, ...], bao: OpenBao, aws: Ministack) -> str:
        script, folder = self.drill.agent, self.drill.folder
        text, program = self._text(script.policy), (folder / script.program).resolve()
        version = world.policies.put(script.id, text, author="drill", reason="as reviewed", known_good=True)
        info = world.core.launch(
            LaunchSpec(
                agent=script.id,
                command=(
                    sys.executable,
                    str(program),
                    *("--shared", str(self.shared), "--agent", script.id),
                    *("--vault", f"http://vault.internal:{bao.address.rpartition(':')[2]}"),
                    *("--aws", f"http://aws.internal:{aws.endpoint_url.rpartition(':')[2]}"),
                ),
                policy=script.id,
                policy_version=version.version,
                policy_text=text,
                workdir=str(self.shared),
                readable=(str(folder), str(program.parent), str(self.shared)),
                writable=(str(self.shared / "work"),),
                credentials=credentials,
                tenant=script.tenant,
                team=script.team,
                tags=("drill",),
            )
        )
        return info.instance

    # -- the incident --------------------------------------------------------------------------------------------------

    def _text(self, name: str) -> str:
        """A file of the drill's with the agent's id and the servers' ports in it."""
        text = (self.drill.folder / name).read_text().replace("{agent}", self.drill.agent.id)
        for server, port in self.ports.items():
            text = text.replace(f"{{{server}}}", port)
        return text

    def _rehearse(
        self, settings: config.Settings, file: Path, world: World, sink: Sink | None, instance: str
    ) -> dict[str, Any]:
        script, journal = self.drill.agent, Journal(settings.journal)
        subject = self.drill.expect.subject or instance
        bystander = self._bystander(world) if self.drill.world.bystander else None
        before = self.counters.read()[0]
        prompter = Prompter(
            self.drill.script,
            settings.telemetry,
            file,
            whom={"agent": world.core.agent(script.id), "bystander": bystander}.get,
            policy=script.id,
            incident=lambda: self._incident(journal, subject).id,
        )
        deadline = time.monotonic() + self.drill.limits.seconds
        if script.widened is not None:
            world.policies.put(script.id, self._text(script.widened), author="drill", reason="quick fix, unreviewed")
            _tell(stage="the policy was widened, unreviewed, to version 2", ms=None)
        if script.lure is not None:
            _tell(stage="a ticket with instructions in it arrives", ms=None)
            arriving = self.shared / "work" / "arriving"
            arriving.write_text(self._text(script.lure))
            arriving.chmod(0o644)
            arriving.rename(self.shared / "inbox" / script.lure)
        prompter.start()
        try:
            incident = self._follow(journal, subject, deadline)
        finally:
            prompter.stop()
        uploaded, received = self.counters.read()[1], sink.received if sink else 0
        working = self._works_again(world, incident, instance, before)
        seen = Seen(
            uploaded=uploaded,
            received=received,
            still=sink.received if sink else 0,
            working=working,
            bystander=bystander is None or self._free(world, bystander.agent),
        )
        return record(incident) | {
            "upload": {"agent_sent": seen.uploaded, "sink_received": seen.still},
            "working_again": working,
            "problems": list(problems(self.drill, incident, seen)),
        }

    def _bystander(self, world: World) -> AgentInfo:
        """A second agent under the same policy, which sleeps."""
        script = self.drill.agent
        return world.core.launch(
            LaunchSpec(
                agent=self.drill.world.bystander or "",
                command=(sys.executable, "-c", "import time\nwhile True: time.sleep(0.05)"),
                policy=script.id,
                policy_version=1,
                policy_text=self._text(script.policy),
                tenant=script.tenant,
                tags=("drill",),
            )
        )

    def _free(self, world: World, agent: str) -> bool:
        info = world.core.agent(agent)
        return info.hold is None and info.state is AgentState.RUNNING

    def _incident(self, journal: Journal, subject: str) -> Incident:
        return next(found for found in journal.incidents() if found.instance == subject)

    def _follow(self, journal: Journal, subject: str, deadline: float) -> Incident:
        def ours() -> Incident | None:
            return next((found for found in journal.incidents() if found.instance == subject), None)

        incident: Incident = _until("an incident", deadline - time.monotonic(), ours)
        told = 0
        while True:
            incident = journal.incident(incident.id)
            zero = first_event_ns(incident)
            for entry in incident.timeline[told:]:
                _tell(at_ms=(entry.at_ns - zero) / 1e6, phase=entry.phase.value, what=entry.what, detail=entry.detail)
            told = len(incident.timeline)
            for asked in journal.approvals(ApprovalState.PENDING, incident=incident.id):
                # A drill has nobody else to ask. It goes the way that a person's answer goes.
                journal.answer(
                    asked.id, nonce=asked.nonce, who="drill", grant=True, reason="rehearsed", channel="drill"
                )
            if incident.status is IncidentStatus.CLOSED or time.monotonic() > deadline:
                return incident
            time.sleep(_POLL_SECONDS)

    def _works_again(self, world: World, incident: Incident, instance: str, before: int) -> bool:
        """The agent finishes rounds of its normal work: the relaunched one with its new credentials, and not the old
        one; or the old one, where nothing was to be done about it.
        """
        if incident.status is not IncidentStatus.CLOSED:
            return False
        if self.drill.expect.relaunched is (world.core.agent(self.drill.agent.id).instance == instance):
            return False
        rounds = self.counters.read()[0]
        try:
            _until("the agent's work", 20, lambda: self.counters.read()[0] not in (rounds, before))
        except NotEnforced:
            return False
        return True

    def _clear(self, world: World) -> None:
        """End whatever agents are left, so that nothing outlives the drill."""
        try:
            for info in world.core.agents():
                if info.exit_status is None:
                    world.core.contain(info.agent, Level.STOP, reason="the drill is over", by="drill")
        except NotFound:
            return


def main(folder: str, state: str, host_network: str) -> int:
    """Run; the last line is the outcome."""
    log.configure()
    try:
        drill = load(Path(folder).name, Path(folder).parent)
        _tell(outcome=_Theatre(drill, Path(state), Path(host_network)).run())
    except ClawbackError as error:
        _tell(error=error.message, hint=error.hint)
        return error.exit_status
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
