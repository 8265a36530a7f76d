"""`clawback accept`: on record with who and why, by the rules, and the incident closes over it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from clawback.journal import Journal
from clawback.model import Incident, Phase, ReceiptState

from .running import FINDING, clawback

pytestmark = pytest.mark.slow


def of(state: Path) -> Journal:
    return Journal(f"sqlite:///{state / 'journal.db'}")


@pytest.fixture
def stuck(tmp_path: Path) -> Incident:
    journal = of(tmp_path)
    incident, _ = journal.open_or_join(FINDING, playbook="no-such-book")
    receipt = journal.intend(incident, "aws.rotate-key:x", "aws.rotate-key", Phase.ERADICATE, {}, "responder")
    journal.failed(receipt.id, "there are two keys already")
    found = journal.incident(incident.id)
    journal.dispose()
    return found


def test_accepted_and_on_record(stuck: Incident, tmp_path: Path) -> None:
    said = clawback(tmp_path, "accept", stuck.id, "aws.rotate-key", "--reason", "the second is mine")
    assert said.returncode == 0, said.stderr
    assert f"clawback resume {stuck.id}" in said.stdout.replace("\n", " ")
    (receipt,) = of(tmp_path).incident(stuck.id).receipts
    assert receipt.state is ReceiptState.ACCEPTED
    assert "accepts it as failed: the second is mine; it was: there are two keys already" in receipt.error
    assert of(tmp_path).due() == (stuck.id,)
    shown = clawback(tmp_path, "show", stuck.id)
    assert "accepted" in shown.stdout
    ticket = clawback(tmp_path, "ticket", "export", stuck.id).stdout
    assert "accepted by a person as they stand" in ticket.replace("\n", " ")
    assert clawback(tmp_path, "audit", "verify").returncode == 0


def test_waits_where_the_rules_say_so(stuck: Incident, tmp_path: Path) -> None:
    (tmp_path / "clawback.yaml").write_text(
        "approvals:\n  rules:\n    - {actions: [receipt.accept], quorum: 1, separate: true}\n"
    )
    words = ("accept", stuck.id, "aws.rotate-key", "--reason", "the second is mine")
    said = clawback(tmp_path, *words)
    assert said.returncode != 0
    assert "clawback approvals grant APR-" in said.stderr.replace("\n", " ")
    assert of(tmp_path).incident(stuck.id).receipts[0].state is ReceiptState.FAILED
    (asked,) = of(tmp_path).approvals()
    assert "there are two keys already" in "".join(asked.shown)
    of(tmp_path).answer(asked.id, nonce=asked.nonce, who="another", grant=True, reason="ok", channel="cli")
    assert clawback(tmp_path, *words).returncode == 0
    assert of(tmp_path).incident(stuck.id).receipts[0].state is ReceiptState.ACCEPTED


def test_wrong_words(stuck: Incident, tmp_path: Path) -> None:
    said = clawback(tmp_path, "accept", stuck.id, "vault.rotate", "--reason", "x")
    assert said.returncode != 0
    assert "aws.rotate-key" in said.stderr
    assert "without a reason" in clawback(tmp_path, "accept", stuck.id, "aws.rotate-key", "--reason", "").stderr
    assert json.loads(clawback(tmp_path, "show", stuck.id, "--json").stdout)["receipts"][0]["state"] == "failed"
