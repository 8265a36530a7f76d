"""A question of the journal, shown and answered in Prefect: only a recorded grant, by somebody who counts, is one."""

from __future__ import annotations

import dataclasses
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from clawback.connectors.codes import code_for
from clawback.journal import Journal
from clawback.model import Approval, ApprovalState, Finding, IncidentStatus, ReceiptState, Severity
from clawback.services.prefect_server import PrefectServer, credential
from clawback.services.process import Service

SCRIPT = Path(__file__).with_name("fleet.py")
FINDING = Finding(
    detector="rehearsal", agent="agent", instance="agent-a", severity=Severity.HIGH, technique="T0001", resource="/r",
    policy="p", policy_version=1, title="t", summary="s", time_ns=1, events=("e",),
)  # fmt: skip
pytestmark = [pytest.mark.parts, pytest.mark.slow]


class Desk:
    """A Prefect server, a worker whose last step waits for a person, and that person's ways to answer."""

    def __init__(self, state: Path, server: PrefectServer) -> None:
        self.state, self.server = state, server
        self.url = f"sqlite:///{state / 'journal.db'}"
        self.journal = Journal(self.url)
        self.worker: Service | None = None
        self._number = 0

    def start(self, mode: str) -> Service:
        if self.worker is not None:
            self.worker.stop()
        self._number += 1
        log = self.state / f"worker-{self._number}.log"
        self.worker = Service(
            "worker", [sys.executable, str(SCRIPT), str(self.state), self.url, "--offer", "--approvals", mode],
            log=log, ready=lambda: "deployments are registered" in log.read_text(), deadline=90,
        ).start()  # fmt: skip
        return self.worker

    def asked(self, agent: str) -> Approval:
        """The question of a new incident, once it stands."""
        finding = dataclasses.replace(FINDING, agent=agent, instance=f"{agent}-a", events=(agent,))
        incident, _ = self.journal.open_or_join(finding, playbook="rehearse")
        until("the question", lambda: self.journal.approvals(incident=incident.id))
        return self.journal.approvals(incident=incident.id)[0]

    def ask(self, path: str, body: Any = None) -> Any:
        user, password = credential(self.server.state).split(":")
        answer = httpx.request(
            "GET" if body is None else "POST", f"{self.server.api_url}/{path}", json=body, auth=(user, password),
            timeout=30,
        )  # fmt: skip
        answer.raise_for_status()
        return answer.json() if answer.content else None

    def runs(self, one: Approval) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.ask(
            "flow_runs/filter", {"flow_runs": {"tags": {"all_": [f"approval:{one.id}"]}}, "sort": "START_TIME_DESC"}
        )
        return found

    def paused(self, one: Approval, key: str = "", but: str = "") -> dict[str, Any]:
        """Its run, once that is paused (on the form with this key)."""

        def seen() -> Any:
            return next(
                (
                    run
                    for run in self.runs(one)
                    if run["state"]["type"] == "PAUSED"
                    and key in ("", run["state"]["state_details"]["pause_key"])
                    and run["id"] != but
                ),
                None,
            )

        return until(f"a paused run of {one.id}", seen)  # type: ignore[no-any-return]

    def fill_in(self, run: dict[str, Any], **answer: str) -> str:
        """As the UI's form does; what the server says to it."""
        said: str = self.ask(f"flow_runs/{run['id']}/resume", {"run_input": answer})["status"]
        return said

    def made(self, one: Approval) -> int:
        calls = Counter((self.state / "effects" / "calls").read_text().splitlines())
        return calls[f"effect {one.incident}.restored"]

    def closed(self, one: Approval) -> None:
        until("the end", lambda: self.journal.incident(one.incident).status is IncidentStatus.CLOSED)


def until(what: str, seen: Callable[[], Any], seconds: float = 60.0) -> Any:
    deadline = time.monotonic() + seconds
    while not (found := seen()):
        assert time.monotonic() < deadline, f"waited for {what}"
        time.sleep(0.05)
    return found


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    state = tmp_path_factory.mktemp("state")
    with PrefectServer(state, deadline=120) as server:
        made = Desk(state, server)
        yield made
        if made.worker is not None:
            made.worker.stop()
        made.journal.dispose()


@pytest.fixture(scope="module")
def shared(desk: Desk) -> Desk:
    desk.start("shared")
    return desk


def test_granted_in_the_ui_the_step_is_made_once(shared: Desk) -> None:
    one = shared.asked("granted")
    run = shared.paused(one)
    assert run["name"].startswith("mark.restore")
    assert shared.made(one) == 0
    assert shared.fill_in(run, answer="grant", reason="reviewed") == "ACCEPT"
    shared.closed(one)
    assert shared.made(one) == 1
    (vote,) = shared.journal.approval(one.id).votes
    assert (vote.who, vote.grant, vote.reason, vote.channel) == ("prefect:shared", True, "reviewed", "prefect")
    until("the run's end", lambda: shared.runs(one)[0]["state"]["name"] == "Granted")


def test_denied_in_the_ui_it_is_not_made(shared: Desk) -> None:
    one = shared.asked("denied")
    shared.fill_in(shared.paused(one), answer="deny", reason="not now")
    until("the run's end", lambda: shared.runs(one)[0]["state"]["name"] == "Denied")
    until("the receipt", lambda: shared.journal.incident(one.incident).receipts[-1].state is ReceiptState.FAILED)
    assert "denied by prefect:shared: not now" in shared.journal.incident(one.incident).receipts[-1].error
    assert shared.made(one) == 0


def test_nothing_filled_in_and_a_gate_pushed_open_are_no_grant(shared: Desk) -> None:
    one = shared.asked("pushed")
    run = shared.paused(one, "1")
    assert shared.fill_in(run) == "REJECT"
    # A state set by force skips the form.
    shared.ask(f"flow_runs/{run['id']}/set_state", {"state": {"type": "RUNNING"}, "force": True})
    again = shared.paused(one, "2")
    assert "nothing was answered" in again["state"]["message"]
    shared.ask(f"flow_runs/{run['id']}/set_state", {"state": {"type": "COMPLETED"}, "force": True})
    fresh = shared.paused(one, but=run["id"])
    assert shared.journal.approval(one.id).state is ApprovalState.PENDING
    assert shared.made(one) == 0
    shared.fill_in(fresh, answer="grant")
    shared.closed(one)
    assert shared.made(one) == 1


def test_answered_by_the_command_line_its_run_ends(shared: Desk) -> None:
    one = shared.asked("elsewhere")
    shared.paused(one)
    shared.journal.answer(one.id, nonce=one.nonce, who="ann", grant=True)
    shared.closed(one)
    until("the run's end", lambda: shared.runs(one)[0]["state"]["name"] == "Granted")


def test_killed_while_paused_the_answer_given_meanwhile_counts_and_no_other(shared: Desk) -> None:
    granted, silent = shared.asked("killed-granted"), shared.asked("killed-silent")
    runs = shared.paused(granted), shared.paused(silent)
    assert shared.worker is not None
    shared.worker.kill()
    shared.fill_in(runs[0], answer="grant")
    shared.ask(f"flow_runs/{runs[1]['id']}/set_state", {"state": {"type": "RUNNING"}, "force": True})
    assert (shared.made(granted), shared.made(silent)) == (0, 0)
    shared.start("shared")
    shared.closed(granted)
    shared.paused(silent, "2")
    assert (shared.made(granted), shared.made(silent)) == (1, 0)
    shared.journal.answer(silent.id, nonce=silent.nonce, who="ann", grant=False)


def test_where_codes_are_asked_for_only_a_persons_own_counts(desk: Desk) -> None:
    desk.start("codes")
    other, one = desk.asked("other-question"), desk.asked("with-code")
    run = desk.paused(one, "1")
    assert desk.fill_in(run, answer="grant") == "REJECT"  # neither person nor code
    code = code_for(desk.state, one, "ann")
    wrong = [
        ("ann", "AAAA-AAAA-AAAA"),
        ("bob", code),
        ("ann", code_for(desk.state, other, "ann")),
        ("prefect:shared", ""),
    ]
    for number, (person, given) in enumerate(wrong, 1):
        paused = desk.paused(one, str(number))
        assert desk.fill_in(paused, answer="grant", person=person, code=given) == "ACCEPT"
    last = desk.paused(one, str(len(wrong) + 1))
    assert "not that person's" in last["state"]["message"]
    assert desk.made(one) == 0
    assert desk.journal.approval(one.id).votes == ()
    desk.fill_in(last, answer="grant", person="ann", code=code.lower().replace("-", " "))
    desk.closed(one)
    assert [vote.who for vote in desk.journal.approval(one.id).votes] == ["ann"]
    desk.journal.answer(other.id, nonce=other.nonce, who="ann", grant=False)


def test_guessing_comes_to_an_end(desk: Desk) -> None:
    one = desk.asked("guessed")
    for number in range(1, 11):
        desk.fill_in(desk.paused(one, str(number)), answer="grant", person="ann", code=f"{number}")
    until("the run's end", lambda: desk.runs(one)[0]["state"]["type"] == "CANCELLED")
    desk.asked("after-the-guesses")  # the look at this one would have offered the other anew
    desk.paused(desk.journal.approvals(ApprovalState.PENDING)[-1])
    assert len(desk.runs(one)) == 1
    assert desk.journal.approval(one.id).state is ApprovalState.PENDING
    for left in desk.journal.approvals(ApprovalState.PENDING):
        desk.journal.answer(left.id, nonce=left.nonce, who="ann", grant=False)
