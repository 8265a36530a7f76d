"""`clawback cap`: what stands, what waits, and a person's word, bounded and on record."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from clawback.journal import Journal
from clawback.model import Level, Phase

from .running import FINDING, clawback

REFLEX = replace(FINDING, reflex=Level.ISOLATE)


@pytest.mark.slow
def test_shown_lifted_for_a_while_and_restored(tmp_path: Path) -> None:
    journal = Journal(f"sqlite:///{tmp_path / 'journal.db'}")
    incident, _ = journal.open_or_join(REFLEX, playbook="book")
    journal.note(incident, Phase.CONTAIN, "reflex withheld", "60 agents")
    shown = clawback(tmp_path, "cap")
    assert "0 agents contained within a minute, of 60" in shown.stdout
    assert incident.id in shown.stdout
    assert clawback(tmp_path, "cap", "--override", "all of them are affected", "--for", "10m").returncode == 0
    said = json.loads(clawback(tmp_path, "cap", "--json").stdout)
    assert said["override"]["per_minute"] == 0
    assert said["override"]["reason"] == "all of them are affected"
    assert said["waiting"] == [{"incident": incident.id, "agent": "agent-1"}]
    assert clawback(tmp_path, "cap", "--restore").returncode == 0
    assert clawback(tmp_path, "cap", "--restore").returncode == 5
    assert clawback(tmp_path, "audit", "verify").returncode == 0
    assert [entry.what for entry in journal.audit_entries() if entry.kind == "override"] == [
        "cap lifted",
        "cap as configured",
    ]


@pytest.mark.slow
@pytest.mark.parametrize("words", [(" ",), ("x", "--for", "9h"), ("x", "--for", "soon"), ("x", "--restore")])
def test_not_without_a_reason_and_not_for_good(tmp_path: Path, words: tuple[str, ...]) -> None:
    Journal(f"sqlite:///{tmp_path / 'journal.db'}")
    refused = clawback(tmp_path, "cap", "--override", *words)
    assert refused.returncode == 2, refused.stdout
    assert "error:" in refused.stderr
