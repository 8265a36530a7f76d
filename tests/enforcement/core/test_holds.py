from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from clawback.enforcement.core.holds import Holds
from clawback.errors import InvalidInput
from clawback.model import Level


@pytest.fixture
def holds(tmp_path):
    return Holds(tmp_path / "holds")


def hold(holds, agent="a", level=Level.FREEZE, **more):
    return holds.add(agent, level, **{"reason": "r", "by": "me", "incident": "", "at_ns": 5, **more})


def test_a_hold_is_on_disk_when_add_returns_and_is_found_again(tmp_path, holds):
    hold(holds)
    hold(holds, level=Level.ISOLATE, at_ns=9)
    again = Holds(tmp_path / "holds").get("a")
    assert again.levels == (Level.FREEZE, Level.ISOLATE)
    assert again.placed_ns == 5
    assert (tmp_path / "holds" / "a.json").stat().st_mode & 0o777 == 0o600


def test_it_is_flushed_before_it_is_renamed_and_the_folder_after(holds, monkeypatch):
    done = []
    fsync, rename = os.fsync, os.rename
    monkeypatch.setattr(
        os, "fsync", lambda fd: (done.append(str(Path(f"/proc/self/fd/{fd}").readlink())[-4:]), fsync(fd))
    )
    monkeypatch.setattr(os, "rename", lambda *args, **kw: (done.append("mv"), rename(*args, **kw)))
    hold(holds)
    assert done == [".new", "mv", "olds"]


def test_removing_levels_leaves_the_rest_and_the_last_removes_the_file(tmp_path, holds):
    hold(holds)
    hold(holds, level=Level.ISOLATE)
    assert holds.remove("a", (Level.FREEZE,)).levels == (Level.ISOLATE,)
    assert holds.remove("a", (Level.ISOLATE,)) is None
    assert holds.get("a") is None
    assert list((tmp_path / "holds").iterdir()) == []


def test_a_damaged_file_still_holds(tmp_path, holds):
    hold(holds, level=Level.STOP)
    (tmp_path / "holds" / "a.json").write_text('{"agent": "a", "lev')
    assert Holds(tmp_path / "holds").get("a").levels == (Level.FREEZE, Level.ISOLATE)


def test_a_file_that_names_another_agent_holds_the_one_it_is_filed_under(tmp_path, holds):
    hold(holds, agent="b")
    path = tmp_path / "holds" / "b.json"
    body = json.loads(path.read_text())
    (tmp_path / "holds" / "a.json").write_text(json.dumps(body))
    assert Holds(tmp_path / "holds").get("a").agent == "a"


def test_what_was_never_renamed_is_no_hold(tmp_path, holds):
    (tmp_path / "holds" / ".a.new").write_text("{}")
    assert Holds(tmp_path / "holds").all() == ()


@pytest.mark.parametrize("name", ["", "../x", "a/b", ".a", "a" * 64, "a\n", "ä"])
def test_names_that_are_none_are_refused(holds, name):
    with pytest.raises(InvalidInput):
        hold(holds, agent=name)
