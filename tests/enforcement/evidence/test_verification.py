"""What verifying a bundle finds, and a disk that is full while one is written."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import pytest

from clawback.enforcement.evidence import Limits, chain, verify
from clawback.enforcement.evidence.writer import Writer


@pytest.fixture
def bundle(tmp_path):
    """A folder and its manifest's hash, in a chain of three."""
    root = tmp_path / "evidence"
    made = []
    for name in ("INC-1/a", "INC-2/b", "c"):
        writer = Writer(root / name, Limits())
        writer.json("processes.json", [{"pid": 1}])
        writer.text("output.log", "said")
        _, digest, _ = writer.finish({"agent": "a"})
        chain.append(root, writer.folder, digest)
        made.append((writer.folder, digest))
    return made[1]


def test_a_whole_bundle_is_found_whole_and_in_the_chain(bundle):
    folder, digest = bundle
    found = verify(folder, expected=digest)
    assert (found.wrong, found.chained, found.files) == ((), True, 2)


def change(folder: Path, how: str) -> None:
    if how == "file":
        (folder / "output.log").write_text("sait")
    elif how == "gone":
        (folder / "output.log").unlink()
    elif how == "more":
        (folder / "more").write_text("x")
    elif how == "link":
        (folder / "output.log").rename(folder.parent / "moved")
        (folder / "output.log").symlink_to(folder.parent / "moved")
    elif how == "fifo":
        (folder / "output.log").unlink()
        os.mkfifo(folder / "output.log")
    elif how == "manifest":
        text = json.loads((folder / "manifest.json").read_text())
        text["agent"] = "another"
        (folder / "manifest.json").write_text(json.dumps(text))
    elif how == "outside":
        text = json.loads((folder / "manifest.json").read_text())
        text["files"].append({"path": "../../chain.jsonl", "bytes": 1, "sha256": ""})
        (folder / "manifest.json").write_text(json.dumps(text))
    elif how == "no manifest":
        (folder / "manifest.json").unlink()
    elif how == "no json":
        (folder / "manifest.json").write_text("[")


@pytest.mark.parametrize(
    "how", ["file", "gone", "more", "link", "fifo", "manifest", "outside", "no manifest", "no json"]
)
def test_whatever_was_changed_is_said(bundle, how):
    folder, digest = bundle
    change(folder, how)
    assert verify(folder, expected=digest).wrong
    assert verify(folder).wrong, "without the hash from elsewhere, by the chain or the manifest"


@pytest.mark.parametrize("line", [0, 1])
def test_a_line_taken_out_of_the_chain_is_noticed(bundle, line):
    folder, _ = bundle
    path = folder.parents[1] / "chain.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    del lines[line]
    path.write_text("".join(lines))
    assert verify(folder).wrong


def test_a_bundle_taken_out_of_its_folder_is_verified_by_its_hash_alone(bundle, tmp_path):
    folder, digest = bundle
    (tmp_path / "elsewhere").mkdir()
    moved = folder.rename(tmp_path / "elsewhere" / "b")
    found = verify(moved, expected=digest)
    assert (found.wrong, found.chained) == ((), False)


def test_a_full_disk_leaves_a_bundle_of_what_fitted(tmp_path, monkeypatch):
    """Writing fails as the kernel fails it; the manifest still fits."""
    writer = Writer(tmp_path / "b", Limits())
    writer.text("first", "fits")
    real = os.write
    refuse = {"now": True}

    def write(fd, data):
        if refuse["now"]:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(fd, data)

    monkeypatch.setattr(os, "write", write)
    writer.text("second", "does not")
    with writer.stream("third.bin") as stream:
        stream.write(b"nor this")
    refuse["now"] = False
    _, digest, files = writer.finish({})
    assert files == 2  # the first, and what there is of the third
    assert [line for line in writer.truncated if "No space" in line] == [
        "second: not kept: No space left on device",
        "third.bin: 0 bytes: No space left on device",
    ]
    assert verify(tmp_path / "b", expected=digest).wrong == ()
