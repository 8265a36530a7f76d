"""What the commands for halts and evidence say where words are wrong, parts are missing, or all is well."""

from __future__ import annotations

import json

import pytest

from clawback.cli.agents import _as_tree, read_duration
from clawback.enforcement.evidence import Limits
from clawback.enforcement.evidence.writer import Writer
from clawback.errors import InvalidInput
from clawback.model import AgentInfo, AgentState

from .running import clawback

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    ("words", "status"),
    [
        (("halt", "everybody", "--reason", "r"), 2),
        (("halt", "all"), 2),  # no reason
        (("halt", "all", "--reason", "r", "--level", "melt"), 2),
        (("halt", "all", "--reason", "r", "--for", "soon"), 2),
        (("contain", "a", "--reason", "r", "--level", "freeze", "--allow", "127.0.0.1:1"), 2),
        (("contain", "a", "--reason", "r", "--level", "stop", "--readable", "/usr"), 2),
        (("contain", "a", "--reason", "r", "--level", "isolate", "--allow", "127.0.0.1:1"), 3),
        (("halts",), 3),
        (("lift", "all", "--reason", "r"), 3),
        (("evidence", "verify", "nowhere"), 4),
        (("evidence", "collect", "a"), 3),
    ],
)
def test_each_way_to_fail_has_its_status(tmp_path, words, status):
    said = clawback(tmp_path, *words)
    assert said.returncode == status, said.stderr
    assert "error: " in said.stderr
    assert "hint: " in said.stderr


@pytest.mark.parametrize(("words", "seconds"), [("", 0), ("90s", 90), ("30m", 1800), ("8h", 28_800), ("7d", 604_800)])
def test_times(words, seconds):
    assert read_duration(words) == seconds


@pytest.mark.parametrize("words", ["8", "h", "0h", "-1h", "1.5h", "8 h", "8w", "٣h"])
def test_times_that_are_none(words):
    with pytest.raises(InvalidInput, match="--for"):
        read_duration(words)


def test_evidence_that_was_changed_ends_with_1(tmp_path):
    writer = Writer(tmp_path / "b", Limits())
    writer.text("output.log", "said")
    _, digest, _ = writer.finish({})
    assert clawback(tmp_path, "evidence", "verify", "b", "--sha256", digest).returncode == 0
    (tmp_path / "b" / "output.log").write_text("sait")
    said = clawback(tmp_path, "evidence", "verify", "b", "--json")
    assert said.returncode == 1
    assert json.loads(said.stdout)["wrong"] == ["'output.log': has changed"]


def info(agent: str, parent: str = "") -> AgentInfo:
    return AgentInfo(
        agent=agent,
        instance="i",
        state=AgentState.RUNNING,
        pid=1,
        command=(),
        policy="p",
        policy_version=1,
        started_ns=0,
        parent=parent,
    )


def test_the_tree_has_each_agent_once_below_its_parent():
    found = (info("a"), info("b", "a"), info("c", "b"), info("d", "gone"), info("e", "a"))
    assert [(depth, one.agent) for depth, one in _as_tree(found)] == [(0, "a"), (1, "b"), (2, "c"), (1, "e"), (0, "d")]
