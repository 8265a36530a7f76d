"""User ids and group are one core's alone, for as long as it runs and no longer."""

from __future__ import annotations

import multiprocessing
import os
import signal

import pytest

from clawback.enforcement.core.claims import claimed, unclaimed_uid_base
from clawback.enforcement.telemetry.roster import UIDS
from clawback.errors import Refused

pytestmark = [
    pytest.mark.kernel,
    pytest.mark.skipif(os.geteuid() != 0, reason="only root has user ids to give, and to claim"),
]


@pytest.fixture
def other(tmp_path):
    """Another process that has claimed (1 << 30, "one") in this file."""
    context = multiprocessing.get_context("fork")
    mine, theirs = context.Pipe()

    def hold() -> None:
        with claimed(1 << 30, "one", file=tmp_path / "locks"):
            theirs.send("held")
            signal.pause()

    process = context.Process(target=hold)
    process.start()
    assert mine.recv() == "held"
    yield process
    process.kill()
    process.join()


@pytest.mark.parametrize("base", [1 << 30, (1 << 30) + UIDS - 1, (1 << 30) - UIDS + 1])
def test_some_of_its_user_ids(other, tmp_path, base):
    with (
        pytest.raises(Refused, match=rf"core.uid_base.*process {other.pid}\)") as refused,
        claimed(base, "two", file=tmp_path / "locks"),
    ):
        pass
    assert "core.cgroup" in refused.value.hint


def test_its_group(other, tmp_path):
    with (
        pytest.raises(Refused, match=r"core\.cgroup 'one'"),
        claimed((1 << 30) + UIDS, "one", file=tmp_path / "locks"),
    ):
        pass


def test_neither_or_after_its_end(other, tmp_path):
    for base in ((1 << 30) + UIDS, (1 << 30) - UIDS):
        with claimed(base, "two", file=tmp_path / "locks"):
            pass
    other.kill()
    other.join()
    with claimed(1 << 30, "one", file=tmp_path / "locks"):
        pass


def test_what_is_chosen_is_unclaimed(other, tmp_path, monkeypatch):
    blocks = [(1 << 30) - 1, (1 << 30) + UIDS]
    monkeypatch.setattr("random.sample", lambda *_: blocks)
    assert unclaimed_uid_base(file=tmp_path / "locks") == blocks[1]
    assert unclaimed_uid_base(file=tmp_path / "none") == blocks[0]


@pytest.mark.slow
def test_a_second_core_ends_at_its_start(core, make_core):
    second = make_core()
    second.uid_base = core.uid_base + UIDS - 1
    with pytest.raises(AssertionError, match="ended at its start"):
        second.start()
    second.uid_base, second.group = second.uid_base + 1, core.group
    with pytest.raises(AssertionError, match="ended at its start"):
        second.start()
    assert core.client.health()["status"] == "ok"
