"""`clawback approvals` and `clawback audit`: a person's word, and the record of it."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path

import pytest

from clawback.journal import Journal
from clawback.journal.approvals import Need
from clawback.model import Approval, Phase

from .running import FINDING, clawback

pytestmark = pytest.mark.slow


@pytest.fixture
def asked(tmp_path: Path) -> Approval:
    journal = Journal(f"sqlite:///{tmp_path / 'journal.db'}")
    incident, _ = journal.open_or_join(FINDING, playbook="book")
    asked = journal.ask(
        incident, "k", "aws.delete-key", Phase.POST_INCIDENT, {"name": "x"}, Need(),
        shown=("- access key AKIA…", "\x1b[31m[red]forged"), actor="responder",
    )  # fmt: skip
    journal.dispose()
    return asked


def test_listed_shown_granted_and_on_record(asked: Approval, tmp_path: Path) -> None:
    listed = clawback(tmp_path, "approvals", "list").stdout
    assert asked.id in listed
    assert "aws.delete-key" in listed
    shown = clawback(tmp_path, "approvals", "show", asked.id).stdout
    assert "- access key AKIA" in shown
    assert "\x1b" not in shown
    assert "[red]forged" in shown
    nonce = json.loads(clawback(tmp_path, "approvals", "show", asked.id, "--json").stdout)["nonce"]
    granted = clawback(tmp_path, "approvals", "grant", asked.id, "--nonce", nonce, "--reason", "reviewed", "--json")
    assert granted.returncode == 0, granted.stderr
    said = json.loads(granted.stdout)
    assert said["state"] == "granted"
    assert said["votes"][0]["reason"] == "reviewed"
    assert clawback(tmp_path, "audit", "verify").returncode == 0


def test_an_answer_without_a_terminal_names_its_question(asked: Approval, tmp_path: Path) -> None:
    refused = clawback(tmp_path, "approvals", "grant", asked.id)
    assert refused.returncode == 2
    assert "--nonce" in refused.stderr
    wrong = clawback(tmp_path, "approvals", "deny", asked.id, "--nonce", "0" * 32)
    assert wrong.returncode == 5
    assert "is no answer" in wrong.stderr


def test_denied_and_renewed(asked: Approval, tmp_path: Path) -> None:
    assert clawback(tmp_path, "approvals", "deny", asked.id, "--nonce", asked.nonce).returncode == 0
    again = clawback(tmp_path, "approvals", "grant", asked.id, "--nonce", asked.nonce)
    assert again.returncode == 5
    assert "renew" in again.stderr
    renewed = clawback(tmp_path, "approvals", "renew", asked.id, "--json")
    assert json.loads(renewed.stdout)["state"] == "pending"
    listed = json.loads(clawback(tmp_path, "approvals", "list", "--all", "--json").stdout)
    assert [one["state"] for one in listed] == ["denied", "pending"]


def test_an_unknown_one_is_not_found(tmp_path: Path) -> None:
    assert clawback(tmp_path, "approvals", "show", "APR-0").returncode == 4


def test_a_changed_record_is_exit_1_and_named(asked: Approval, tmp_path: Path) -> None:
    head = clawback(tmp_path, "audit", "head").stdout.strip()
    assert clawback(tmp_path, "audit", "verify", "--head", head).returncode == 0
    events = [json.loads(line) for line in clawback(tmp_path, "audit", "export").stdout.splitlines()]
    assert {"approval", "incident", "finding", "line"} <= {event["entity"]["type"] for event in events}
    with sqlite3.connect(tmp_path / "journal.db") as connection:
        connection.execute("UPDATE approvals SET state = 'granted'")
    connection.close()
    broken = clawback(tmp_path, "audit", "verify", "--json")
    assert broken.returncode == 1
    assert [fault["where"] for fault in json.loads(broken.stdout)["faults"]] == [f"approval {asked.id}"]
