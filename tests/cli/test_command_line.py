"""What a user sees of the command line when parts are missing or words are wrong."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from .running import clawback

pytestmark = pytest.mark.slow  # each starts the command line anew

PARTS = ("up", "core", "gateway", "watch")
AGENTS = ("run", "agents", "contain", "release", "policy")
RECORD = ("incidents", "show", "resume", "ticket")
CHECKS = ("replay", "doctor", "catalog", "drill", "demo")
TABLETOP = Path(__file__).parents[1] / "tabletop"


def test_help_names_every_command(state):
    said = clawback(state, "--help")
    assert said.returncode == 0
    for word in (*PARTS, *AGENTS, *RECORD, *CHECKS):
        assert word in said.stdout


@pytest.mark.parametrize(
    "words",
    [
        ("contain", "x", "--level", "freeze"),  # no reason
        ("contain", "x", "--level", "melt", "--reason", "y"),
        ("agents", "--no-such-flag"),
        ("no-such-command",),
        ("policy", "check", "no-such-file"),
        ("run", "--policy", "no-such-file", "--", "true"),
    ],
)
def test_bad_usage_ends_with_2_and_a_hint(state, words):
    said = clawback(state, *words)
    assert said.returncode == 2, said
    assert "error: " in said.stderr
    assert "hint: " in said.stderr
    assert "Traceback" not in said.stderr


def test_an_option_that_there_is_not_is_named_and_not_taken_for_the_program(state):
    said = clawback(state, "run", "--polcy", "x", "--", "true")
    assert said.returncode == 2
    assert "--polcy" in said.stderr
    assert "--policy" in said.stderr


@pytest.mark.parametrize(
    "words", [("agents",), ("contain", "x", "--level", "freeze", "--reason", "y"), ("policy", "list", "support")]
)
def test_a_missing_part_ends_with_3_and_says_which(state, words):
    said = clawback(state, *words)
    assert said.returncode == 3, said
    assert said.stderr.startswith("error: ")
    assert "hint: " in said.stderr


def test_an_unknown_incident_ends_with_4(state):
    assert clawback(state, "show", "INC-20260101-AAAAAA").returncode == 4


def test_an_unknown_drill_ends_with_4(state):
    assert clawback(state, "drill", "run", "no-such-drill").returncode == 4


def test_an_unknown_setting_is_named_with_its_file(state):
    (state / "clawback.yaml").write_text("core:\n  cgruop: x\n")
    said = clawback(state, "agents")
    assert said.returncode == 2
    assert "core.cgruop" in said.stderr
    assert "clawback.yaml" in said.stderr


def test_policy_check_says_what_is_sound_and_what_is_not(state):
    good = TABLETOP / "rogue-agent-exfiltration" / "policy.yaml"
    bad = state / "bad.yaml"
    bad.write_text(good.read_text().replace("maxMemory", "maxMemroy"))
    said = clawback(state, "policy", "check", str(good), str(bad))
    assert said.returncode == 2
    assert "policy.yaml: sound" in said.stdout
    assert "maxMemroy" in said.stderr
    assert "bad.yaml:" in said.stderr
    assert clawback(state, "policy", "check", str(good)).returncode == 0


def test_the_examples_are_sound(state):
    examples = sorted((Path(__file__).parents[2] / "examples").iterdir())
    said = clawback(state, "policy", "check", "--json", *map(str, examples))
    assert said.returncode == 0, said.stderr
    forms = {row["form"] for row in json.loads(said.stdout)}
    assert forms == {"SandboxPolicy", "OpenShell version 1", "NemoClaw preset", "seccomp profile"}
    shown = clawback(state, "policy", "check", *map(str, examples))
    assert shown.returncode == 0
    assert "enforced by" in shown.stdout


def test_catalog_is_json(state):
    found = json.loads(clawback(state, "catalog", "--json").stdout)
    assert {"agent.freeze", "agent.isolate"} <= {row["id"] for row in found["actions"]}
    assert found["detectors"]
    assert "contain-rogue-agent" in {row["id"] for row in found["playbooks"]}


def test_doctor_says_what_is_missing_and_how_to_get_it(state):
    checks = json.loads(clawback(state, "doctor", "--json").stdout)
    core = next(check for check in checks if check["name"] == "core")
    assert not core["ok"]
    assert core["fix"]
    assert core["lost"]


def test_drills_are_listed(state):
    listed = json.loads(clawback(state, "drill", "list", "--json").stdout)
    assert "rogue-agent-exfiltration" in {row["name"] for row in listed}
