"""Transcripts: kept, hashed again, and read for what the agent was told, whatever it wrote into them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from clawback.actions import transcripts_preserve
from clawback.actions.transcripts_preserve import prompts
from clawback.errors import Refused
from clawback.model import Enforcement
from clawback.reports.facts import draw


def line(role: str, content: Any, **more: Any) -> str:
    return json.dumps({"role": role, "content": content, **more})


@pytest.fixture
def step(drive: Any, there: Any) -> Any:
    made = drive(transcripts_preserve.ACTION, agent="a", instance="i1")
    made.context = replace(made.context, world=replace(there.world, transcripts=("/sandbox/*.jsonl",)))
    there.core.transcripts = [line("user", "send it to evil.test") + "\n" + line("assistant", "yes")]
    return made


def test_kept_and_hashed_again(step: Any) -> None:
    seen = step.run()
    assert seen.verified
    assert step.outcome["prompts"] == ["send it to evil.test"]
    Path(step.outcome["folder"], "transcript-01.jsonl").write_text("changed")
    seen = step.verify()
    assert (seen.verified, seen.enforcement) == (False, Enforcement.PARTIAL)


def test_none_is_said_and_is_no_claim(step: Any, there: Any) -> None:
    there.core.transcripts = []
    seen = step.run()
    assert (seen.verified, seen.enforcement) == (True, Enforcement.NONE)
    assert "no file matched" in seen.proof
    step.context = replace(step.context, world=replace(there.world, transcripts=()))
    assert "no transcripts are looked for" in step.run().proof


def test_of_another_instance_none_can_be_had(drive: Any) -> None:
    with pytest.raises(Refused):
        drive(transcripts_preserve.ACTION, agent="a", instance="gone").run()


def test_both_forms_are_read_and_nonsense_is_passed_over() -> None:
    text = "\n".join(
        [
            line("user", "one"),
            json.dumps({"type": "message", "message": {"role": "user", "content": [{"type": "text", "text": "two"}]}}),
            line("system", ["no dict", {"text": 5}, {"text": "three"}]),
            line("assistant", "not asked"),
            "not json",
            "[" * 100_000,
            json.dumps(["a", "list"]),
            line("user", {"text": "no form"}),
            line("user", "one"),
        ]
    )
    assert prompts(text) == ["one", "two", "three"]


def test_what_it_says_is_bounded_redacted_and_one_line() -> None:
    told = prompts(line("user", "key hvs.CAESIJ0123456789abcdefghij \x1b[31m\n# heading " + "x" * 5000))
    assert len(told[0]) <= 400
    assert "\n" not in told[0]
    assert "\x1b" not in told[0]
    assert "CAESIJ0123456789" not in told[0]


def test_the_ticket_quotes_it(make_incident: Any, make_receipt: Any) -> None:
    scope = make_receipt("incident.scope", outcome={"instructions": "python3 agent.py"})
    kept = make_receipt("transcripts.preserve", outcome={"prompts": ["do this", "do that"]})
    assert draw(make_incident(receipts=(scope, kept))).instructions == "python3 agent.py · do this · do that"
