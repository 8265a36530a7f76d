"""Transcripts of a real agent that lays every trap it can: links, pipes, huge files, a million names."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import pytest

from clawback.enforcement.evidence import Limits, collect
from clawback.enforcement.evidence import transcripts as written
from clawback.enforcement.quarantine import freeze
from clawback.errors import InvalidInput

PATTERN = "/tmp/agents/*/sessions/*.jsonl"
SECRET = "planted-in-a-secret-file"
AGENT = f"""
def session(agent, name, text):
    folder = f"/tmp/agents/{{agent}}/sessions"
    os.makedirs(folder, exist_ok=True)
    with open(f"{{folder}}/{{name}}", "w") as file:
        file.write(text)
session("main", "one.jsonl", '{{"role": "user", "content": "use {SECRET} and hvs.plantedInTheTranscript01"}}\\n')
session("main", "other.txt", "not asked for")
session("big", "big.jsonl", "x" * (5 << 20))
os.makedirs("/tmp/agents/trap/sessions")
os.symlink("/etc/passwd", "/tmp/agents/trap/sessions/link.jsonl")
os.symlink("/etc", "/tmp/agents/linked")
os.makedirs("/tmp/elsewhere/sessions")
open("/tmp/elsewhere/sessions/x.jsonl", "w").write("behind a link")
os.symlink("/tmp/elsewhere", "/tmp/agents/behind")
try:
    os.mkfifo("/tmp/agents/trap/sessions/pipe.jsonl")
except OSError:
    pass  # the filter refuses it: one trap less
os.makedirs("/tmp/agents/trap/sessions/folder.jsonl")
board[0] = 1
time.sleep(1000)
"""


@pytest.mark.kernel
def test_what_matches_is_kept_and_no_trap_is_walked_into(make, tmp_path):
    made = make(AGENT, secrets={"token": SECRET})
    make.wait_until(lambda: made.board[0] == 1, "the traps are laid")
    freeze.apply(made.box)
    bundle = collect(made.box, tmp_path, transcripts=(PATTERN,))
    folder = Path(bundle.folder)
    index = {entry["path"]: entry for entry in json.loads((folder / "transcripts.json").read_text())}
    assert set(index) == {"/tmp/agents/main/sessions/one.jsonl", "/tmp/agents/big/sessions/big.jsonl"}
    one, big = index["/tmp/agents/main/sessions/one.jsonl"], index["/tmp/agents/big/sessions/big.jsonl"]
    original = f'{{"role": "user", "content": "use {SECRET} and hvs.plantedInTheTranscript01"}}\n'.encode()
    assert (one["sha256"], one["bytes"], one["whole"]) == (hashlib.sha256(original).hexdigest(), len(original), True)
    assert (big["bytes"], big["whole"]) == (4 << 20, False)
    everything = b"".join(path.read_bytes() for path in folder.iterdir())
    assert SECRET.encode() not in everything
    assert b"behind a link" not in everything
    assert b"root:x" not in everything
    assert "plantedInTheTranscript" not in (folder / one["shown"]).read_text()
    assert json.loads((folder / one["shown"]).read_text())["role"] == "user"
    assert (folder / big["shown"]).stat().st_size <= 256 << 10
    manifest = json.loads(Path(bundle.manifest).read_text())
    sensitive = {entry["path"] for entry in manifest["files"] if entry.get("sensitive")}
    assert sensitive == {one["raw"], big["raw"]}
    assert "processes.json" not in {entry["path"] for entry in manifest["files"]}


@pytest.mark.kernel
def test_a_folder_of_very_many_names_is_cut_and_time_is_kept(make, tmp_path):
    made = make(
        'os.makedirs("/tmp/agents/a/sessions")\n'
        'for n in range(6000): open(f"/tmp/agents/a/sessions/{n}.txt", "w").close()\n'
        "board[0] = 1\ntime.sleep(1000)\n"
    )
    make.wait_until(lambda: made.board[0] == 1, "the names are there")
    bundle = collect(made.box, tmp_path, transcripts=(PATTERN,))
    assert any("too many names" in one for one in bundle.truncated)
    late = collect(made.box, tmp_path / "late", transcripts=(PATTERN,), limits=Limits(seconds=0))
    assert any("the time was over" in one for one in late.truncated)


@pytest.mark.parametrize("pattern", ["relative/*.jsonl", "/a/../etc/*", "/a/**/x", "/" + "x" * 2000])
def test_a_pattern_that_leads_astray_is_refused(pattern):
    with pytest.raises(InvalidInput):
        written.check((pattern,))


def test_too_many_patterns_are_refused():
    with pytest.raises(InvalidInput, match="at most"):
        written.check([f"/{n}" for n in range(99)])
    assert written.check(["/a", "/a"]) == ("/a",)


def test_masked_values_across_two_pieces_are_found(tmp_path, monkeypatch):
    from clawback.enforcement.evidence.clean import Cleaner
    from clawback.enforcement.evidence.writer import Writer

    monkeypatch.setattr(written, "_PIECE", 10)
    path = tmp_path / "x.jsonl"
    path.write_bytes(b"0123456" + SECRET.encode() + b"tail\n")
    descriptor = os.open(path, os.O_RDONLY)
    writer = Writer(tmp_path / "out", Limits())
    found = written._Found("/x.jsonl", descriptor, os.fstat(descriptor))
    entry = written._kept(found, 1, writer, Cleaner([SECRET]))
    os.close(descriptor)
    raw = (tmp_path / "out" / entry["raw"]).read_bytes()
    assert raw == b"0123456" + b"*" * len(SECRET) + b"tail\n"
    assert "[redacted]" in (tmp_path / "out" / entry["shown"]).read_text()
