"""The memory of a frozen agent: what it held is in the bundle, what we know to be secret is not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from clawback.enforcement.evidence import Limits, collect, verify
from clawback.enforcement.quarantine import freeze, tree
from clawback.model import Enforcement

pytestmark = pytest.mark.kernel

SECRET = "planted-secret-value-0123456789"
# The values are built inside, so that they are in memory and not in the program's text.
AGENT = """
kept = [("fact-in-mem" + "ory-%d" % n) * 100 for n in range(50)]
word = open("/run/secrets/token").read()
held = [word + str(n) for n in range(1000)]
wide = word.encode("utf-16-le") * 3
board[0] = 1
time.sleep(1000)
"""


@pytest.fixture
def made(make):
    made = make(AGENT, secrets={"token": SECRET})
    make.wait_until(lambda: made.board[0] == 1, "the agent holds what it holds")
    return made


def dumps(bundle):
    return sorted(Path(bundle.folder).glob("memory-*.bin"))


def test_what_it_held_is_there_and_the_known_secret_is_not(made, state):
    freeze.apply(made.box)
    bundle = collect(made.box, state / "evidence", memory=True)
    data = b"".join(path.read_bytes() for path in dumps(bundle))
    assert b"fact-in-memory-49fact-in-memory-49" in data
    assert SECRET.encode() not in data
    assert SECRET.encode("utf-16-le") not in data
    assert b"*" * len(SECRET) + b"999" in data
    assert freeze.probe(made.box).enforcement is Enforcement.FULL
    listed = {entry["path"]: entry for entry in json.loads(Path(bundle.manifest).read_text())["files"]}
    for path in dumps(bundle):
        assert path.stat().st_mode & 0o777 == 0o600
        assert listed[path.name]["sensitive"] is True
    assert verify(Path(bundle.folder), expected=bundle.sha256).wrong == ()


def test_every_block_is_where_the_index_says(made, state):
    freeze.apply(made.box)
    bundle = collect(made.box, state / "evidence", memory=True)
    checked = 0
    for path in dumps(bundle):
        index = json.loads(path.with_suffix(".json").read_text())
        data = path.read_bytes()
        with Path(f"/proc/{index['pid']}/mem").open("rb", buffering=0) as memory:
            for address, length, offset in (block for entry in index["maps"] for block in entry["blocks"]):
                memory.seek(address)
                there = memory.read(length)
                block = data[offset : offset + length]
                assert len(there) == len(block)
                assert all(mine in (theirs, 42) for mine, theirs in zip(block, there, strict=True))
                checked += 1
    assert checked > 10


def test_a_tree_that_runs_is_not_read(made, state):
    bundle = collect(made.box, state / "evidence", memory=True)
    assert dumps(bundle) == []
    assert any("not frozen" in line for line in bundle.truncated)


def test_it_is_bounded_and_says_so(made, state):
    freeze.apply(made.box)
    bundle = collect(made.box, state / "evidence", memory=True, limits=Limits(memory=100_000))
    assert sum(path.stat().st_size for path in dumps(bundle)) <= 100_000
    assert any("mappings" in line for line in bundle.truncated)
    assert verify(Path(bundle.folder)).wrong == ()


def test_without_asking_there_is_none(made, state):
    freeze.apply(made.box)
    assert dumps(collect(made.box, state / "evidence")) == []
    assert tree.processes(made.box)
