"""The version store: nothing is lost by a crash, an edit or a rival writer."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from clawback.enforcement.policy.store import PolicyStore
from clawback.errors import ClawbackError, InvalidInput, NotFound


def text(host: str) -> str:
    return f"networkPolicy:\n  name: p\n  egress:\n    allow:\n      - {{domain: {host}}}\n"


@pytest.fixture
def store(tmp_path):
    return PolicyStore(tmp_path / "policies")


def put(store, host, **more):
    return store.put("p", text(host), author="a", reason="r", **more)


def test_versions_are_kept_with_who_when_why_and_what_changed(store):
    first, second = put(store, "a.test", known_good=True), put(store, "b.test", incident="INC-1")
    assert (first.version, second.version, first.known_good, second.incident) == (1, 2, True, "INC-1")
    assert "-      - {domain: a.test}" in second.diff
    assert "+      - {domain: b.test}" in second.diff
    assert put(store, "b.test") == second
    assert store.versions("p") == (first, second)
    assert store.known_good("p") == first
    restored = store.restore("p", 1, author="x", reason="y")
    assert (restored.version, restored.sha256) == (3, first.sha256)
    assert store.restore("p", 1, author="x", reason="y") == restored
    assert not store.active("p").known_good
    assert store.mark_known_good("p", 3, author="x").known_good
    assert PolicyStore(store.folder).versions("p") == store.versions("p")
    assert (store.folder / "p" / "current.yaml").read_text() == text("a.test")


def test_the_active_text_put_again_as_known_good_is_marked(store):
    put(store, "a.test")
    assert put(store, "a.test", known_good=True).known_good
    assert len(store.versions("p")) == 1


def test_what_is_unknown_or_unsound_changes_nothing(store):
    put(store, "a.test")
    for call, kind in (
        (lambda: store.put("p", "x: 1", author="a", reason="r"), InvalidInput),
        (lambda: store.put("../p", text("a.test"), author="a", reason="r"), InvalidInput),
        (lambda: store.restore("p", 9, author="a", reason="r"), NotFound),
        (lambda: store.read("q", 1), NotFound),
        (lambda: store.mark_known_good("p", 0, author="a"), NotFound),
        (lambda: store.edited("q"), NotFound),
    ):
        with pytest.raises(kind):
            call()
    assert len(store.versions("p")) == 1
    assert store.names() == ("p",)


def test_edits_are_taken_once_and_bad_ones_never(store):
    put(store, "a.test")
    current = store.folder / "p" / "current.yaml"
    current.write_text(text("edited.test"))
    edit = store.edited("p")
    assert (edit.version.version, edit.version.author) == (2, f"file:uid={os.getuid()}")
    assert store.edited("p").version is None
    current.write_text("nonsense: [")
    assert isinstance(store.edited("p").refused, InvalidInput)
    current.unlink()
    assert store.edited("p").refused is not None
    current.symlink_to("/etc/passwd")
    assert store.edited("p").refused is not None
    assert store.active("p").version == 2
    assert put(store, "c.test").version == 3
    assert current.read_text() == text("c.test")
    assert not current.is_symlink()


def test_an_edit_that_nobody_has_looked_at_is_kept_as_a_version_of_its_own(store):
    put(store, "a.test")
    (store.folder / "p" / "current.yaml").write_text(text("edited.test"))
    assert put(store, "b.test").version == 3
    assert store.read("p", 2) == text("edited.test")


def test_a_changed_record_is_noticed(store):
    put(store, "a.test")
    put(store, "b.test")
    log = store.folder / "p" / "versions.jsonl"
    log.write_bytes(log.read_bytes().replace(b'"author":"a"', b'"author":"z"', 1))
    with pytest.raises(ClawbackError, match="changed by hand"):
        PolicyStore(store.folder).versions("p")


def test_writers_at_the_same_time_lose_nothing(store):
    put(store, "zero.test")
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda n: put(PolicyStore(store.folder), f"h{n}.test"), range(24)))
    versions = PolicyStore(store.folder).versions("p")
    assert [one.version for one in versions] == list(range(1, 26))


# Kills itself with SIGKILL at the Nth system call that changes something on disk, counted in the calls' own order.
CRASH = """
import os, signal, sys
from pathlib import Path
from clawback.enforcement.policy import store as module
left = int(sys.argv[2])
def counted(name, real):
    def call(*args, **kwargs):
        global left
        left -= 1
        if left == 0:
            if name == "write":
                real(args[0], bytes(args[1])[: len(args[1]) // 2])
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*args, **kwargs)
    return call
for name in ("write", "fsync", "ftruncate", "open", "rename", "mkdir"):
    setattr(os, name, counted(name, getattr(os, name)))
store = module.PolicyStore(Path(sys.argv[1]))
store.put("p", sys.argv[3], author="b", reason="crash")
print("done", left)
"""


@pytest.mark.slow
@pytest.mark.parametrize("first", [True, False], ids=["first version", "second version"])
def test_killed_at_any_step_the_store_is_whole_and_the_version_is_there_or_not(tmp_path, first):
    step = completed = 0
    outcomes = set()
    while not completed:
        step += 1
        store = PolicyStore(tmp_path / str(step))
        if not first:
            put(store, "old.test", known_good=True)
        done = subprocess.run(
            [sys.executable, "-c", CRASH, str(store.folder), str(step), text("new.test")],
            capture_output=True,
            check=False,
        )
        completed = done.returncode == 0
        assert completed or done.returncode == -signal.SIGKILL, done.stderr
        before = () if first else (text("old.test"),)
        after = PolicyStore(store.folder)
        if "p" in after.names():
            edit = after.edited("p")  # what the gateway does first
            assert (edit.version, edit.refused) == (None, None), step
        names = after.names()
        versions = (
            after.versions("p")
            if "p" in names and (store.folder / "p" / "versions.jsonl").read_bytes().count(b"\n")
            else ()
        )
        texts = tuple(after.read("p", one.version) for one in versions)
        assert texts in (before, (*before, text("new.test"))), step
        outcomes.add(len(texts))
        if completed:
            assert len(texts) == len(before) + 1
        if texts:
            assert (store.folder / "p" / "current.yaml").read_text() == texts[-1], step
        again = after.put("p", text("new.test"), author="c", reason="again")
        assert again.version == len(before) + 1
        for line in (store.folder / "p" / "versions.jsonl").read_text().splitlines():
            json.loads(line)
    assert len(outcomes) == 2, "some crashes came before the version was recorded, some after"
    assert step > 8


PROFILE = '{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": []}'
OPENSHELL = (
    "version: 1\nnetwork_policies:\n  a:\n    endpoints: [{{host: {}, port: 443}}]\n    binaries: [{{path: /**}}]\n"
)


@pytest.mark.parametrize("texts", [
    (OPENSHELL.format("a.test"), OPENSHELL.format("b.test")),
    (PROFILE, PROFILE.replace("[]", '[{"names": ["flock"], "action": "SCMP_ACT_LOG"}]')),
    (text("a.test"), OPENSHELL.format("a.test")),
])  # fmt: skip
def test_every_form_is_kept_edited_and_restored(store, texts):
    old, new = texts
    first = store.put("p", old, author="a", reason="r", known_good=True)
    current = store.folder / "p" / "current.yaml"
    current.write_text(new)
    edit = store.edited("p")
    assert edit.version is not None
    assert edit.version.version == 2
    current.write_text(new.replace("a", "[", 1))
    assert isinstance(store.edited("p").refused, InvalidInput)
    restored = store.restore("p", first.version, author="a", reason="r")
    assert (restored.version, store.read("p", 3), current.read_text()) == (3, old, old)
    assert PolicyStore(store.folder).versions("p") == store.versions("p")
