from __future__ import annotations

import contextlib
import errno
import itertools
import json
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clawback.enforcement import durable
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
    assert list((tmp_path / "holds").rglob("*.json")) == []


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
    durable.write(path, "clawback-hold/2 a", json.dumps([]).encode())
    assert Holds(tmp_path / "holds").get("a").levels == (Level.FREEZE, Level.ISOLATE)


def test_what_was_never_renamed_is_no_hold(tmp_path, holds):
    (tmp_path / "holds" / ".a.new").write_text("{}")
    assert Holds(tmp_path / "holds").all() == ()


@pytest.mark.parametrize("name", ["", "../x", "a/b", ".a", "a" * 64, "a\n", "ä"])
def test_names_that_are_none_are_refused(holds, name):
    with pytest.raises(InvalidInput):
        holds.place(name, order())


def files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*.json"))


def test_many_are_held_by_one_flush_and_found_again(tmp_path, holds, monkeypatch):
    flushed = []
    fsync = os.fsync
    monkeypatch.setattr(os, "fsync", lambda fd: (flushed.append(fd), fsync(fd)))
    holds.place_many({name: order(incident=f"INC-{name}") for name in "abc"})
    assert len(flushed) == 2, "the file and its folder"
    again = Holds(tmp_path / "holds")
    assert {hold.agent: hold.incident for hold in again.all()} == {"a": "INC-a", "b": "INC-b", "c": "INC-c"}
    (path,) = (tmp_path / "holds" / "together").iterdir()
    assert path.stat().st_mode & 0o777 == 0o600


def test_one_of_many_that_is_released_leaves_the_others_and_the_last_the_file(tmp_path, holds):
    holds.place_many({name: order() for name in "ab"})
    assert holds.lift("a", holds.get("a").orders, tuple(Level)) is None
    assert [hold.agent for hold in Holds(tmp_path / "holds").all()] == ["b"]
    holds.lift("b", holds.get("b").orders, tuple(Level))
    assert files(tmp_path / "holds") == []


def test_a_further_order_for_one_of_many_stands_in_a_file_of_its_own(tmp_path, holds):
    holds.place_many({name: order() for name in "ab"})
    holds.place("a", order(Level.ISOLATE))
    assert Holds(tmp_path / "holds").get("a").levels == (Level.FREEZE, Level.ISOLATE)
    assert len(files(tmp_path / "holds")) == 2, "the other one is still in the file for many"
    again = Holds(tmp_path / "holds")
    again.place("b", order(Level.ISOLATE))
    assert files(tmp_path / "holds") == ["a.json", "b.json"]
    again.lift("a", again.get("a").orders, tuple(Level))
    assert [hold.agent for hold in Holds(tmp_path / "holds").all()] == ["b"]


def test_whoever_is_held_already_keeps_what_holds_it(holds):
    holds.place("a", order(Level.RESTRICT, by="you"))
    holds.place_many({"a": order(), "b": order()})
    assert holds.get("a").levels == (Level.FREEZE, Level.RESTRICT)
    assert len(holds.get("a").orders) == 2


@pytest.mark.parametrize("how", ["cut", "bit", "empty", "unsigned", "folder", "fifo"])
def test_where_a_file_for_many_is_damaged_everybody_is_held(tmp_path, holds, how):
    holds.place_many({name: order(Level.STOP) for name in "ab"})
    damage(next((tmp_path / "holds" / "together").iterdir()), how)
    again = Holds(tmp_path / "holds")
    assert [name.partition("/")[0] for name in again.damaged] == ["together"]
    again.presume(["a", "b", "c"])
    assert {hold.agent: hold.levels for hold in again.all()} == dict.fromkeys("abc", (Level.FREEZE, Level.ISOLATE))
    later = Holds(tmp_path / "holds")
    assert later.damaged == ()
    assert len(later.all()) == 3


NAMES = st.sampled_from("abcd")
LEVELS = st.sampled_from([Level.FREEZE, Level.ISOLATE, Level.SEAL])
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("place"), NAMES, LEVELS),
        st.tuples(st.just("many"), st.sets(NAMES, min_size=1), LEVELS),
        st.tuples(st.just("lift"), NAMES, st.sets(LEVELS, min_size=1)),
        st.tuples(st.just("again"), st.just(""), st.just(None)),
    ),
    max_size=12,
)


def step(holds: Holds, what: str, who, levels) -> None:
    if what == "place":
        holds.place(who, order(levels))
    elif what == "many":
        holds.place_many({name: order(levels) for name in who})
    elif what == "lift" and (hold := holds.get(who)) is not None:
        holds.lift(who, hold.orders, levels)


def levels_of(holds: Holds) -> dict[str, set[Level]]:
    return {hold.agent: set(hold.levels) for hold in holds.all()}


@given(steps=STEPS)
def test_whatever_was_ordered_is_what_is_read(tmp_path_factory, steps):
    folder = tmp_path_factory.mktemp("holds")
    holds = Holds(folder)
    for what, who, levels in steps:
        if what == "again":
            holds = Holds(folder)
        else:
            step(holds, what, who, levels)
        by_name = {hold.agent: hold for hold in holds.all()}
        assert {hold.agent: hold for hold in Holds(folder).all()} == by_name


@given(steps=STEPS, last=STEPS.filter(bool), at=st.integers(0, 3))
def test_cut_off_anywhere_no_hold_is_lost(tmp_path_factory, steps, last, at):
    folder = tmp_path_factory.mktemp("holds")
    holds = Holds(folder)
    for what, who, levels in steps:
        step(holds, what, who, levels)
    before = levels_of(holds)
    what, who, levels = last[0]
    with pytest.MonkeyPatch.context() as patch:
        calls = itertools.count()

        def cut(call):
            def made(*arguments):
                if next(calls) >= at:
                    raise OSError(errno.EIO, "cut off")
                return call(*arguments)

            return made

        patch.setattr(durable, "write", cut(durable.write))
        patch.setattr(durable, "remove", cut(durable.remove))
        with contextlib.suppress(OSError):
            step(holds, what, who, levels)
    found = levels_of(Holds(folder))
    lifted = levels if what == "lift" else set()
    for agent, held in before.items():
        still = held - (lifted if agent == who else set())
        assert found.get(agent, set()) >= still, (agent, found, before)


def test_those_that_become_due_are_known_apart_until_they_are(tmp_path, holds):
    holds.place("a", order(due_ns=50))
    holds.place_many({"b": order(due_ns=70), "c": order()})
    assert {hold.agent for hold in holds.dated()} == {"a", "b"}
    assert {hold.agent for hold in Holds(tmp_path / "holds").dated()} == {"a", "b"}
    holds.mark("a", lambda one: one.due_ns <= 60)
    holds.lift("b", holds.get("b").orders, tuple(Level))
    assert holds.dated() == ()
    assert ("a" in holds, "b" in holds, "c" in holds) == (True, False, True)
