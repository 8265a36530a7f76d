"""The listener that chats reach, as `clawback up` starts it: a real process, real HTTP, bounded in what it takes."""

from __future__ import annotations

import hashlib
import hmac
import json
import socket
from collections.abc import Iterator

import httpx
import pytest
import yaml

from clawback import config
from clawback.connectors.callbacks import MAX_BODY
from clawback.journal import Journal
from clawback.journal.approvals import Need
from clawback.model import Approval, ApprovalState, Finding, Phase, Severity
from clawback.services.process import Service, free_port
from clawback.services.stack import Stack

SECRET = b"pd-secret"
FINDING = Finding(
    detector="d", agent="agent-1", instance="agent-1-a", severity=Severity.HIGH, technique="T", resource="/r",
    policy="p", policy_version=1, title="t", summary="s", time_ns=1, events=("e",),
)  # fmt: skip
pytestmark = [pytest.mark.slow]


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> config.Settings:
    state = tmp_path_factory.mktemp("state")
    (state / "secret").write_bytes(SECRET)
    (state / "secret").chmod(0o600)
    (state / "clawback.yaml").write_text(
        yaml.safe_dump(
            {
                "state": str(state),
                "approvals": {
                    "listen": f"127.0.0.1:{free_port()}",
                    "channels": {"pagerduty": {"secret_file": str(state / "secret"), "people": {"PLH1HKV": "ann"}}},
                },
            }
        )
    )
    return config.load(state / "clawback.yaml")


@pytest.fixture(scope="module")
def listener(settings: config.Settings) -> Iterator[Service]:
    part = Stack(settings, config_file=settings.state / "clawback.yaml")._answers_or_not()
    assert part.running, part.tail()
    yield part
    part.stop()


@pytest.fixture
def asked(settings: config.Settings, listener: Service) -> Iterator[Approval]:
    journal = Journal(settings.journal)
    incident, _ = journal.open_or_join(FINDING, playbook="book")
    yield journal.ask(incident, "k", "a.b", Phase.RECOVER, {}, Need(), shown=(), actor="responder")
    journal.dispose()


def note(words: str) -> tuple[bytes, dict[str, str]]:
    agent = {"id": "PLH1HKV", "type": "user_reference"}
    event = {"event_type": "incident.annotated", "agent": agent, "data": {"content": words}}
    body = json.dumps({"event": event}).encode()
    return body, {"X-PagerDuty-Signature": "v1=" + hmac.new(SECRET, body, hashlib.sha256).hexdigest()}


def test_a_signed_answer_is_taken_once_however_often_it_is_sent(settings: config.Settings, asked: Approval) -> None:
    url = f"http://{settings.approvals.listen}/pagerduty"
    body, headers = note(f"grant {asked.id} {asked.nonce}")
    assert (
        httpx.post(url, content=body, headers={**headers, "X-PagerDuty-Signature": "v1=" + "0" * 64}).status_code == 403
    )
    assert httpx.post(url, content=body, headers=headers).status_code == 200
    assert [httpx.post(url, content=body, headers=headers).status_code for _ in range(3)] == [403] * 3
    journal = Journal(settings.journal)
    now = journal.approval(asked.id)
    assert now.state is ApprovalState.GRANTED
    assert [(vote.who, vote.channel) for vote in now.votes] == [("ann", "pagerduty")]
    # Spent, and sent once more: it grants nothing further, and not the same question asked anew.
    journal.use(asked.id, "responder")
    again = journal.ask(
        asked.incident, "k", "a.b", Phase.RECOVER, {}, Need(), shown=(), actor="responder"
    )  # fmt: skip
    assert again.id != asked.id
    assert httpx.post(url, content=body, headers=headers).status_code == 403
    assert journal.approval(again.id).state is ApprovalState.PENDING
    journal.dispose()


def test_what_is_too_long_or_too_slow_is_cut_off(settings: config.Settings, listener: Service) -> None:
    url = f"http://{settings.approvals.listen}/pagerduty"
    assert httpx.post(url, content=b"x" * (MAX_BODY + 1)).status_code == 400
    host, _, port = settings.approvals.listen.partition(":")
    with socket.create_connection((host, int(port)), timeout=30) as slow:
        slow.sendall(b"POST /pagerduty HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\nx")
        answer = b""
        while part := slow.recv(4096):
            answer += part
    assert answer.startswith(b"HTTP/1.1 408")
    assert httpx.get(url).status_code == 405
    assert listener.running
