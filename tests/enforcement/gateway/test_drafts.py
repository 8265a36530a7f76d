"""Drafts of a running gateway, by its client: made from a version, put in force by nobody, true once they are."""

from __future__ import annotations

import json
import subprocess
import sys
import time

import pytest

from clawback.connectors.telemetry import FileTelemetry
from clawback.errors import InvalidInput, NotFound
from clawback.journal import Journal
from clawback.model import Attempt, Finding, HttpActivity, Narrowing, Severity

pytestmark = pytest.mark.slow


def get(gateway, sink, host: str, path: str = "/") -> bytes:
    raw = f"GET http://{host}:{sink.port}{path} HTTP/1.1\r\nHost: {host}:{sink.port}\r\nConnection: close\r\n\r\n"
    return gateway.send(raw.encode())[:12]


def test_a_draft_changes_nothing_until_it_is_put_and_then_decides_as_it_said(gateway, sink):
    sink.reply = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"
    client, here = gateway.client, f"http://good.test:{sink.port}"
    assert get(gateway, sink, "good.test", "/v1/tickets/7") == b"HTTP/1.1 200"
    telemetry = FileTelemetry(gateway.state / "telemetry")
    seen = gateway.until(lambda: [x for x in telemetry.events(since_ns=0).events if isinstance(x, HttpActivity)])
    assert (seen[0].agent, seen[0].host, seen[0].path, seen[0].blocked) == (
        "rogue",
        "good.test",
        "/v1/tickets/7",
        False,
    )
    use, rogue = (
        Attempt(kind="http", target=f"GET {here}/v1/tickets/7"),
        Attempt(kind="http", target=f"GET {here}/admin"),
    )
    draft = client.draft("test", 1, Narrowing(deny=(rogue,), keep=(use,), drop=True), attempts=(use, rogue))
    assert [one.allowed for one in draft.decisions] == [True, False]
    assert client.active("test").version == 1
    assert get(gateway, sink, "good.test", "/admin") == b"HTTP/1.1 200"
    new = client.put("test", draft.text, author="soc", reason="tightened", incident="INC-1", known_good=True)
    assert (new.sha256, new.incident, client.active("test")) == (draft.sha256, "INC-1", new)
    assert [get(gateway, sink, "good.test", path) for path in ("/v1/tickets/8", "/admin", "/else")] == [
        b"HTTP/1.1 200",
        b"HTTP/1.1 403",
        b"HTTP/1.1 403",
    ]
    began = seen[0].time_ns + 1
    denied = gateway.until(
        lambda: [x for x in telemetry.events(instance=seen[0].instance, since_ns=began).events if x.blocked][1:]
    )
    assert denied[-1].path == "/else"


def test_what_is_not_there_or_not_sound_is_said(gateway):
    with pytest.raises(NotFound):
        gateway.client.draft("test", 99, Narrowing())
    with pytest.raises(InvalidInput, match="share"):
        gateway.client.draft("test", 1, Narrowing(share=2))


def test_tightened_by_the_command_line_once_another_said_yes_to_that_text(gateway, sink):
    journal = Journal(f"sqlite:///{gateway.state / 'journal.db'}")
    rogue = f"http://good.test:{sink.port}/admin"
    found = Finding(
        detector="exfiltration.new-destination", agent="rogue", instance="rogue-1", severity=Severity.HIGH,
        technique="T1567", resource="good.test", policy="test", policy_version=1, title="t", summary="s",
        time_ns=time.time_ns(), events=("e",), attempts=(("http", f"GET {rogue}"),),
    )  # fmt: skip
    incident, _ = journal.open_or_join(found, playbook="contain-rogue-agent")

    def clawback(*words):
        command = [sys.executable, "-m", "clawback", "--state", str(gateway.state), *words]
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=90)

    shown = clawback("policy", "tighten", incident.id, "--dry-run")
    assert shown.returncode == 0, shown.stderr
    assert "/admin" in shown.stdout
    assert "1 rogue calls denied" in shown.stdout
    assert clawback("policy", "tighten", incident.id).returncode == 2  # no reason
    waits = clawback("policy", "tighten", incident.id, "--reason", "that ticket")
    assert waits.returncode == 5, waits.stderr
    assert gateway.client.active("test").version == 1
    (asked,) = journal.approvals(incident=incident.id)
    assert any("/admin" in line for line in asked.shown)
    journal.answer(asked.id, nonce=asked.nonce, who="ann", grant=True, reason="read it")
    done = clawback("policy", "tighten", incident.id, "--reason", "that ticket")
    assert done.returncode == 0, done.stderr
    active = gateway.client.active("test")
    assert (active.version, active.incident, active.known_good) == (2, incident.id, True)
    assert get(gateway, sink, "good.test", "/admin") == b"HTTP/1.1 403"
    undone = clawback("undo", incident.id, "--reason", "too narrow", "--json")
    assert undone.returncode in (0, 5), undone.stderr
    reviewed = clawback(
        "incidents", "review", incident.id, "--cause", "overly powerful tooling", "--reason", "it could", "--json"
    )
    assert reviewed.returncode == 0, reviewed.stderr
    said = json.loads(reviewed.stdout)
    assert (said["root_causes"][0]["category"], said["root_causes"][0]["confidence"]) == (
        "overly powerful tooling",
        1.0,
    )
    assert clawback("incidents", "review", incident.id, "--cause", "bad luck", "--reason", "x").returncode == 2
