"""The first 72 hours of denials, by agent and policy version, and what is news after them."""

from __future__ import annotations

import json

import pytest

from clawback.enforcement.telemetry.baseline import PERIOD_NS, Baselines
from clawback.enforcement.telemetry.roster import Tracked

START = 1_800_000_000_000_000_000
LATER = START + PERIOD_NS


def tracked(*, instance: str = "i1", version: int = 1, since_ns: int = START) -> Tracked:
    return Tracked(agent="a", instance=instance, uid=1, pid=1, policy="p", policy_version=version, since_ns=since_ns)


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "baselines"


def test_a_denial_of_the_first_72_hours_is_never_news(folder):
    known = Baselines(folder)
    assert not known.denied(tracked(), "ptrace", LATER - 1)
    assert not known.denied(tracked(), "ptrace", LATER + 1)


def test_a_new_one_after_them_is_news_once(folder):
    known = Baselines(folder)
    known.started(tracked())
    assert known.denied(tracked(), "mount", LATER)
    assert not known.denied(tracked(), "mount", LATER + 1)
    assert known.denied(tracked(), "bpf", LATER + 1)


def test_a_restart_of_the_core_and_a_relaunch_are_no_new_beginning(folder):
    before = Baselines(folder)
    before.started(tracked())
    before.denied(tracked(), "ptrace", START)
    before.denied(tracked(), "mount", LATER)
    before.save()
    after = Baselines(folder)
    again = tracked(instance="i2", since_ns=LATER)
    after.started(again)
    assert not after.denied(again, "ptrace", LATER + 1)
    assert not after.denied(again, "mount", LATER + 1)
    assert after.denied(again, "bpf", LATER + 1)


def test_another_policy_version_begins_anew(folder):
    known = Baselines(folder)
    known.denied(tracked(), "ptrace", START)
    new = tracked(version=2, since_ns=LATER)
    assert not known.denied(new, "mount", LATER + 1)
    assert known.denied(tracked(), "mount", LATER + 1)


def test_versions_and_calls_are_bounded(folder):
    known = Baselines(folder)
    for version in range(20):
        known.started(tracked(version=version, since_ns=START + version))
    for number in range(5000):
        known.denied(tracked(version=19, since_ns=START + 19), f"call{number}", START + 20)
    known.save()
    body = json.loads((folder / "a.json").read_text())
    assert sorted(body) == ["p/16", "p/17", "p/18", "p/19"]
    assert len(body["p/19"]["calls"]) == 1024


@pytest.mark.parametrize("text", ["", "[]", "{", '{"p/1": 3}', '{"p/1": {"since_ns": 1, "calls": [1], "told": []}}'])
def test_an_unreadable_file_begins_anew(folder, text):
    folder.mkdir()
    (folder / "a.json").write_text(text)
    known = Baselines(folder)
    assert not known.denied(tracked(), "ptrace", START)
    known.save()
    assert json.loads((folder / "a.json").read_text())["p/1"]["calls"] == ["ptrace"]


def test_what_cannot_be_saved_is_saved_later(tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("")
    known = Baselines(blocked)
    known.denied(tracked(), "ptrace", START)
    known.save()
    blocked.unlink()
    known.save()
    assert "ptrace" in (blocked / "a.json").read_text()
