"""Scripted events are events, or are refused with file and line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from clawback.drills.script import build, read_script
from clawback.errors import InvalidInput
from clawback.model import Disposition, FileActivity, Lifecycle, Severity, Source
from clawback.model.ocsf import encode, parse_line

GOOD: dict[str, Any] = {"at": -3, "event": "FileActivity", "fields": {"path": "/x", "disposition": "blocked"}}


def write(tmp_path: Path, *lines: Any) -> Path:
    file = tmp_path / "events.jsonl"
    file.write_text("".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines))
    return file


def made(line: Any, **more: Any) -> Any:
    known = {"agent": "a", "instance": "a-1", "policy": "p", "version": 2}
    return build(line, 5_000_000, 1, **(known | more))


def test_a_line_becomes_an_event_that_the_telemetry_takes(tmp_path: Path) -> None:
    [line] = read_script(write(tmp_path, GOOD))
    event = made(line)
    assert isinstance(event, FileActivity)
    assert (event.agent, event.policy_version, event.disposition) == ("a", 2, Disposition.BLOCKED)
    assert parse_line(encode(event)[:-1], Source.SANDBOX) == event


def test_repeated_lines_are_numbered_and_all_are_in_the_order_of_their_times(tmp_path: Path) -> None:
    many = {**GOOD, "times": 3, "every": 2, "fields": {"path": "/f-{n}"}}
    lines = read_script(write(tmp_path, {"at": 9, "then": "resume"}, many, "", {**GOOD, "at": 0}))
    assert [(line.at, line.fields.get("path")) for line in lines] == [
        (-3, "/f-0"), (-1, "/f-1"), (0, "/x"), (1, "/f-2"), (9, None)
    ]  # fmt: skip


def test_about_nothing(tmp_path: Path) -> None:
    beat = {"event": "Lifecycle", "about": "nothing", "fields": {"component": "c", "status": "s", "severity": "high"}}
    [line] = read_script(write(tmp_path, beat))
    event = made(line, agent="", instance="")
    assert isinstance(event, Lifecycle)
    assert event.subject == ("component:c", "component:c")
    assert event.severity is Severity.HIGH


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("{", "events.jsonl:2"),
        ({**GOOD, "event": "Earthquake"}, "'Earthquake' is none of"),
        ({**GOOD, "fields": {"path": "/x", "colour": "red"}}, "FileActivity has no 'colour'"),
        ({**GOOD, "fields": {}}, "path"),
        ({**GOOD, "fields": {"path": "/x", "severity": "awful"}}, "AWFUL"),
        ({**GOOD, "when": 3}, "when"),
        ({**GOOD, "times": 0}, "times"),
    ],
)
def test_what_is_no_event_is_refused_by_its_line(tmp_path: Path, line: Any, says: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        read_script(write(tmp_path, GOOD, line))
    assert "events.jsonl:2" in caught.value.message
    assert says in caught.value.message
