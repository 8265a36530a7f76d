"""Playbooks, runbooks and drills as Prefect offers them: launched there, journalled as any other response."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from clawback import catalog
from clawback.errors import InvalidInput
from clawback.journal import Journal
from clawback.model import Finding, Incident, IncidentStatus, Severity
from clawback.orchestrate.declared import declare
from clawback.services.prefect_server import PrefectServer, credential
from clawback.services.process import Service

SCRIPT = Path(__file__).with_name("fleet.py")
FINDING = Finding(
    detector="rehearsal", agent="agent", instance="agent-a", severity=Severity.HIGH, technique="T0001", resource="/r",
    policy="p", policy_version=1, title="t", summary="s", time_ns=1, events=("e",),
)  # fmt: skip


def test_the_catalogue_is_declared_whole_with_typed_parameters() -> None:
    units = catalog.load()
    declared = {(one.flow, one.name): one for one in declare(units.playbooks, units.runbooks, {})}
    assert {(name, "playbook") for name in units.playbooks} <= declared.keys()
    assert {(name, "runbook") for name in units.runbooks} <= declared.keys()
    assert {("drill", one.drill) for one in units.runbooks.values()} <= declared.keys()
    for name, runbook in units.runbooks.items():
        one = declared[name, "runbook"]
        properties = one.schema["properties"]
        assert {*(runbook.facts.get("parameters") or {}), "AGENT", "INCIDENT", "REASON"} == set(properties)
        assert all(given["type"] and given["description"] for given in properties.values()), name
        assert one.playbook == runbook.playbook
        assert "## Mitigation" in one.description
    assert len({one.version for one in declared.values()}) == len(declared)
    with pytest.raises(InvalidInput, match=r"prefect\.drills"):
        declare(units.playbooks, units.runbooks, {"nothing": "* * * * *"})


class Post:
    """A Prefect server, a worker that offers what it has there, and the journal."""

    def __init__(self, state: Path, server: PrefectServer) -> None:
        self.state, self.server = state, server
        self.url = f"sqlite:///{state / 'journal.db'}"
        self.journal = Journal(self.url)
        self.worker: Service | None = None
        self._number = 0

    def start(self) -> None:
        self._number += 1
        log = self.state / f"worker-{self._number}.log"
        self.worker = Service(
            "worker", [sys.executable, str(SCRIPT), str(self.state), self.url, "--offer"], log=log,
            ready=lambda: "deployments are registered" in log.read_text(), deadline=90,
        ).start()  # fmt: skip

    def prefect(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Prefect's own command line, as a person has it."""
        return subprocess.run(
            [Path(sys.executable).with_name("prefect"), *words],
            env={**os.environ, **self.server.environment, "COLUMNS": "200"},
            capture_output=True, text=True, timeout=120, check=False, stdin=subprocess.DEVNULL,
        )  # fmt: skip

    def ask(self, path: str, body: Any = None) -> Any:
        user, password = credential(self.server.state).split(":")
        answer = httpx.request(
            "GET" if body is None else "POST", f"{self.server.api_url}/{path}", json=body, auth=(user, password),
            timeout=30,
        )  # fmt: skip
        answer.raise_for_status()
        return answer.json()

    def launch(self, name: str, **parameters: str) -> str:
        """The id of a flow run."""
        deployment = self.ask(f"deployments/name/{name}")["id"]
        run: str = self.ask(f"deployments/{deployment}/create_flow_run", {"parameters": parameters})["id"]
        return run

    def ended(self, run: str) -> dict[str, Any]:
        def state() -> Any:
            found = self.ask(f"flow_runs/{run}")
            return found if found["state"]["type"] in {"COMPLETED", "FAILED", "CRASHED"} else None

        return until(f"the end of {run}", state)  # type: ignore[no-any-return]

    def incident(self, agent: str) -> Incident:
        return next(one for one in self.journal.incidents() if one.agent == agent)


def until(what: str, seen: Callable[[], Any], seconds: float = 90.0) -> Any:
    deadline = time.monotonic() + seconds
    while not (found := seen()):
        assert time.monotonic() < deadline, f"waited for {what}"
        time.sleep(0.05)
    return found


@pytest.fixture(scope="module")
def post(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Post]:
    state = tmp_path_factory.mktemp("state")
    with PrefectServer(state, deadline=120) as server:
        made = Post(state, server)
        made.start()
        yield made
        assert made.worker is not None
        made.worker.stop()
        made.journal.dispose()


@pytest.mark.parts
@pytest.mark.slow
class TestLaunched:
    def test_all_are_offered(self, post: Post) -> None:
        listed = post.ask("deployments/filter", {})
        assert {one["name"] for one in listed} == {"playbook", "runbook", "no-such-drill"}
        shown = next(one for one in listed if one["name"] == "runbook")
        assert shown["parameter_openapi_schema"]["properties"]["LEVEL"]["enum"] == ["low", "high"]
        assert shown["enforce_parameter_schema"]
        until("ready", lambda: all(one["status"] == "READY" for one in post.ask("deployments/filter", {})))

    def test_by_prefects_command_line_it_opens_an_incident_and_shows_it(self, post: Post) -> None:
        said = post.prefect("deployment", "run", "rehearse/playbook", "-p", "AGENT=agent-1", "-p", "REASON=looks odd")
        assert said.returncode == 0, said.stdout + said.stderr
        until("the incident", lambda: any(one.agent == "agent-1" for one in post.journal.incidents()))
        until("its end", lambda: post.incident("agent-1").status is IncidentStatus.CLOSED)
        incident = post.incident("agent-1")
        assert not incident.drill
        assert incident.findings[0].summary == "by prefect:shared: looks odd"
        assert any(line.what == "launched in Prefect" for line in incident.timeline)
        (run,) = post.ask("flow_runs/filter", {"flow_runs": {"tags": {"all_": [f"incident:{incident.id}"]}}})
        assert post.ended(run["id"])["state"]["type"] == "COMPLETED"
        assert run["deployment_id"], "the run that was launched is the one that shows it"
        assert post.ask(f"flow_runs/{run['id']}")["name"] == incident.id
        wanted = {"task_runs": {}, "flow_runs": {"id": {"any_": [run["id"]]}}}
        until("its steps", lambda: len(post.ask("task_runs/filter", wanted)) == 3)
        tasks = post.ask("task_runs/filter", wanted)
        # For each set of tags that tasks have, Prefect keeps a thread and all of the first one's context for good.
        assert {tag.partition(":")[0] for one in tasks for tag in one["tags"]} == {"clawback"}

    def test_a_runbook_joins_what_is_open(self, post: Post) -> None:
        finding = dataclasses.replace(FINDING, agent="agent-2", instance="agent-2-a", events=("2",))
        with post.journal.lock("agent-2", timeout=10):
            incident, _ = post.journal.open_or_join(finding, playbook="rehearse")
            turn = post.journal.turn(incident.id)
            assert turn is not None
            post.journal.rest(turn, seconds=None, tries=0, pending=1)  # it waits for somebody
        ended = post.ended(post.launch("rehearse-by-hand/runbook", AGENT="agent-2", LEVEL="low"))
        assert ended["state"]["type"] == "COMPLETED", ended["state"]
        assert [one.id for one in post.journal.incidents() if one.agent == "agent-2"] == [incident.id]
        assert post.journal.incident(incident).status is IncidentStatus.CLOSED
        again = post.ended(post.launch("rehearse-by-hand/runbook", INCIDENT=incident.id, LEVEL="low"))
        assert again["state"]["type"] == "FAILED"
        assert "is closed" in again["state"]["message"]

    @pytest.mark.parametrize(
        ("parameters", "why"), [({"AGENT": "nobody"}, "no agent nobody"), ({}, "neither AGENT nor INCIDENT")]
    )
    def test_what_names_nothing_fails_and_says_why(self, post: Post, parameters: dict[str, str], why: str) -> None:
        before = len(post.journal.incidents())
        ended = post.ended(post.launch("rehearse/playbook", **parameters))
        assert ended["state"]["type"] == "FAILED"
        assert why in ended["state"]["message"]
        assert len(post.journal.incidents()) == before

    @pytest.mark.parametrize(
        "parameters", [{"AGENT": "../x", "LEVEL": "low"}, {"AGENT": "a"}, {"AGENT": "a", "LEVEL": "x"}]
    )
    def test_what_is_not_of_its_type_is_refused_by_the_server(self, post: Post, parameters: dict[str, str]) -> None:
        with pytest.raises(httpx.HTTPStatusError, match="409"):
            post.launch("rehearse-by-hand/runbook", **parameters)

    def test_a_drills_agent_is_a_drill(self, post: Post) -> None:
        ended = post.ended(post.launch("rehearse/playbook", AGENT="drilled-1"))
        assert ended["state"]["type"] == "COMPLETED"
        assert "drill" in ended["tags"]
        assert post.incident("drilled-1").drill

    def test_a_drill_is_scheduled_and_its_failure_is_shown(self, post: Post) -> None:
        deployment = post.ask("deployments/name/drill/no-such-drill")
        assert [one["schedule"]["cron"] for one in deployment["schedules"]] == ["0 6 * * 1"]
        ended = post.ended(post.launch("drill/no-such-drill"))
        assert ended["state"]["type"] == "FAILED"
        assert "no-such-drill" in ended["state"]["message"]

    def test_a_schedule_that_people_changed_and_a_launch_that_was_dropped_survive_a_restart(self, post: Post) -> None:
        deployment = post.ask("deployments/name/drill/no-such-drill")
        post.ask(f"deployments/{deployment['id']}/schedules", [{"schedule": {"cron": "30 5 * * *"}, "active": True}])
        assert post.worker is not None
        post.worker.kill()
        run = post.launch("rehearse/playbook", AGENT="agent-9")
        post.ask(f"flow_runs/{run}/set_state", {"state": {"type": "PENDING"}, "force": True})  # taken, and died with
        post.start()
        assert post.ended(run)["state"]["type"] == "COMPLETED"
        assert post.incident("agent-9").status is IncidentStatus.CLOSED
        crons = {one["schedule"]["cron"] for one in post.ask("deployments/name/drill/no-such-drill")["schedules"]}
        assert crons == {"0 6 * * 1", "30 5 * * *"}
