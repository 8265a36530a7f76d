from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from clawback.enforcement.core.holds import FOUND, Holds
from clawback.errors import InvalidInput
from clawback.model import Level, Order


@pytest.fixture
def holds(tmp_path):
    return Holds(tmp_path / "holds")


def order(level=Level.FREEZE, **more):
    return Order(**{"levels": (level,), "reason": "r", "by": "me", "uid": 7, "placed_ns": 5, **more})


def test_a_hold_is_on_disk_when_place_returns_and_is_found_again(tmp_path, holds):
    holds.place("a", order())
    holds.place("a", order(Level.ISOLATE, placed_ns=9))
    again = Holds(tmp_path / "holds").get("a")
    assert again.levels == (Level.FREEZE, Level.ISOLATE)
    assert len(again.orders) == 1
    assert again.placed_ns == 5
    assert (tmp_path / "holds" / "a.json").stat().st_mode & 0o777 == 0o600


def test_it_is_flushed_before_it_is_renamed_and_the_folder_after(holds, monkeypatch):
    done = []
    fsync, rename = os.fsync, os.rename
    monkeypatch.setattr(
        os, "fsync", lambda fd: (done.append(str(Path(f"/proc/self/fd/{fd}").readlink())[-4:]), fsync(fd))
    )
    monkeypatch.setattr(os, "rename", lambda *args, **kw: (done.append("mv"), rename(*args, **kw)))
    holds.place("a", order())
    assert done == [".new", "mv", "olds"]


def test_lifting_levels_leaves_the_rest_and_the_last_removes_the_file(tmp_path, holds):
    holds.place("a", order())
    hold = holds.place("a", order(Level.ISOLATE))
    left = holds.lift("a", hold.orders, (Level.FREEZE,))
    assert left.levels == (Level.ISOLATE,)
    assert holds.lift("a", left.orders, (Level.ISOLATE,)) is None
    assert holds.get("a") is None
    assert list((tmp_path / "holds").iterdir()) == []


def test_what_one_incident_lifts_the_other_keeps(tmp_path, holds):
    holds.place("a", order(incident="INC-1"))
    hold = holds.place("a", order(incident="INC-2", by="you"))
    mine = [one for one in hold.orders if one.incident == "INC-1"]
    assert holds.lift("a", mine, tuple(Level)).levels == (Level.FREEZE,)
    (left,) = Holds(tmp_path / "holds").get("a").orders
    assert left.incident == "INC-2"


def test_a_reflex_that_came_before_its_incident_becomes_the_incidents(holds):
    holds.place("a", order())
    hold = holds.place("a", order(incident="INC-1", placed_ns=9))
    (one,) = hold.orders
    assert (one.incident, one.placed_ns, hold.incident) == ("INC-1", 5, "INC-1")


@pytest.mark.parametrize("more", [{"uid": 8}, {"by": "you"}])
def test_another_user_or_name_is_another_holder(holds, more):
    holds.place("a", order())
    assert len(holds.place("a", order(incident="INC-1", **more)).orders) == 2
    assert len(holds.place("a", order(**more)).orders) == 2 + ("uid" in more or "by" in more)


def test_what_the_core_found_becomes_the_next_holders(holds):
    holds.place("a", Order(levels=(Level.FREEZE,), reason=FOUND, by="core", placed_ns=1))
    (one,) = holds.place("a", order(Level.ISOLATE)).orders
    assert (one.levels, one.by, one.uid, one.reason) == ((Level.FREEZE, Level.ISOLATE), "me", 7, "r")


def test_ordering_what_is_ordered_writes_nothing(tmp_path, holds):
    holds.place("a", order())
    before = (tmp_path / "holds" / "a.json").stat().st_mtime_ns, (tmp_path / "holds" / "a.json").stat().st_ino
    holds.place("a", order(placed_ns=99, reason="again"))
    after = (tmp_path / "holds" / "a.json").stat().st_mtime_ns, (tmp_path / "holds" / "a.json").stat().st_ino
    assert before == after


def test_due_is_marked_once_and_stays(tmp_path, holds):
    holds.place("a", order(due_ns=50))
    assert len(holds.mark("a", lambda one: one.due_ns <= 60)) == 1
    assert holds.mark("a", lambda one: one.due_ns <= 60) == ()
    again = Holds(tmp_path / "holds").get("a")
    assert again.orders[0].due
    assert again.levels == (Level.FREEZE,)


def damage(path: Path, how: str) -> None:
    text = path.read_text()
    if how == "cut":
        path.write_text(text[: len(text) // 2])
    elif how == "bit":
        path.write_text(text.replace('"levels":[5]', '"levels":[1]'))
    elif how == "empty":
        path.write_text("")
    elif how == "unsigned":
        path.write_text(text.partition("\n")[2])
    elif how == "folder":
        path.unlink()
        path.mkdir()
    elif how == "fifo":
        path.unlink()
        os.mkfifo(path)


@pytest.mark.parametrize("how", ["cut", "bit", "empty", "unsigned", "folder", "fifo"])
def test_a_damaged_file_still_holds_and_is_named(tmp_path, holds, how):
    holds.place("a", order(Level.STOP))
    damage(tmp_path / "holds" / "a.json", how)
    again = Holds(tmp_path / "holds")
    assert again.get("a").levels == (Level.FREEZE, Level.ISOLATE)
    assert again.damaged == ("a",)


def test_a_damaged_hold_is_not_taken_over_by_the_next_holder(tmp_path, holds):
    holds.place("a", order(Level.STOP))
    damage(tmp_path / "holds" / "a.json", "cut")
    assert len(Holds(tmp_path / "holds").place("a", order(incident="INC-1")).orders) == 2


def test_a_file_of_another_agent_is_damage(tmp_path, holds):
    holds.place("b", order())
    (tmp_path / "holds" / "a.json").write_bytes((tmp_path / "holds" / "b.json").read_bytes())
    again = Holds(tmp_path / "holds")
    assert again.damaged == ("a",)
    assert again.get("a").levels == (Level.FREEZE, Level.ISOLATE)


def test_an_order_for_nothing_is_damage(tmp_path, holds):
    holds.place("a", order())
    path = tmp_path / "holds" / "a.json"
    from clawback.enforcement import durable

    durable.write(path, "clawback-hold/2 a", json.dumps([]).encode())
    assert Holds(tmp_path / "holds").get("a").levels == (Level.FREEZE, Level.ISOLATE)


def test_what_was_never_renamed_is_no_hold(tmp_path, holds):
    (tmp_path / "holds" / ".a.new").write_text("{}")
    assert Holds(tmp_path / "holds").all() == ()


@pytest.mark.parametrize("name", ["", "../x", "a/b", ".a", "a" * 64, "a\n", "ä"])
def test_names_that_are_none_are_refused(holds, name):
    with pytest.raises(InvalidInput):
        holds.place(name, order())
