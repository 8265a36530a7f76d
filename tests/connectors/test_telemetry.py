"""Telemetry read back: by agent and time, from the newest file backwards, and never more than is asked."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from clawback.connectors import telemetry as module
from clawback.connectors.telemetry import FileTelemetry
from clawback.enforcement.telemetry.writer import TelemetryWriter
from clawback.errors import Unreachable
from clawback.model import FileActivity, HttpActivity, Source

SECOND = 10**9


def write(folder: Path, source: Source, times: range, **fields: object) -> None:
    writer = TelemetryWriter(folder, source, rate=1e9, burst=1e9)
    for at in times:
        if source is Source.SANDBOX:
            writer.emit(FileActivity, agent="a", instance="i1", time_ns=at * SECOND, path=f"/{at}", **fields)
        else:
            about = {"agent": "a", "instance": "i1", "policy": "p"} | fields
            writer.emit(HttpActivity, time_ns=at * SECOND, method="GET", host="h", port=80, path=f"/{at}", **about)
    writer.close()


def test_streams_are_joined_in_order_and_cut_to_the_span(tmp_path: Path) -> None:
    write(tmp_path, Source.SANDBOX, range(10, 20, 2))
    write(tmp_path, Source.POLICY, range(11, 20, 2))
    seen = FileTelemetry(tmp_path).events(agent="a", since_ns=12 * SECOND, until_ns=16 * SECOND)
    assert [x.time_ns // SECOND for x in seen.events] == [12, 13, 14, 15]
    assert seen.complete


def test_others_are_left_out(tmp_path: Path) -> None:
    write(tmp_path, Source.POLICY, range(3))
    write(tmp_path, Source.POLICY, range(3), agent="b", instance="i2", policy="q")
    read = FileTelemetry(tmp_path).events
    assert {x.agent for x in read(instance="i2", since_ns=0).events} == {"b"}
    assert {x.policy for x in read(policy="p", since_ns=0).events} == {"p"}
    assert read(agent="c", since_ns=0).events == ()


def test_rotated_files_are_read_and_compressed_ones_passed_over(tmp_path: Path) -> None:
    write(tmp_path, Source.POLICY, range(1, 3))
    (tmp_path / "policy.jsonl").rename(tmp_path / "policy.jsonl.1")
    (tmp_path / "policy.jsonl.2.gz").write_bytes(b"\x1f\x8b")
    write(tmp_path, Source.POLICY, range(3, 6))
    seen = FileTelemetry(tmp_path).events(agent="a", since_ns=0)
    assert [x.time_ns // SECOND for x in seen.events] == list(range(1, 6))


def test_bounds_are_kept_and_said(tmp_path: Path) -> None:
    write(tmp_path, Source.POLICY, range(50))
    seen = FileTelemetry(tmp_path).events(agent="a", since_ns=0, most=10)
    assert ([x.time_ns // SECOND for x in seen.events], seen.complete) == (list(range(40, 50)), False)
    assert not FileTelemetry(tmp_path, limit=100).events(agent="a", since_ns=0).complete


def test_lines_across_chunks_are_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_CHUNK", 100)
    write(tmp_path, Source.POLICY, range(20))
    assert len(FileTelemetry(tmp_path).events(agent="a", since_ns=0).events) == 20


def test_reading_ends_where_the_span_begins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_CHUNK", 2000)
    write(tmp_path, Source.POLICY, range(0, 10_000, 10))
    # Less than the whole file, and enough for the end of it.
    seen = FileTelemetry(tmp_path, limit=40_000).events(agent="a", since_ns=9_950 * SECOND)
    assert (len(seen.events), seen.complete) == (5, True)


def test_what_is_no_event_is_passed_over(tmp_path: Path) -> None:
    write(tmp_path, Source.POLICY, range(2))
    with (tmp_path / "policy.jsonl").open("ab") as file:
        file.write(b'{"agent":"a"}\nnot json "a"\n\n' + b"\xff" * 10 + b"\n")
    assert len(FileTelemetry(tmp_path).events(agent="a", since_ns=0).events) == 2


def test_nothing_written_is_nothing_seen_and_a_link_is_not_followed(tmp_path: Path) -> None:
    assert FileTelemetry(tmp_path / "none").events(since_ns=0).events == ()
    (tmp_path / "policy.jsonl").symlink_to("/etc/hostname")
    with pytest.raises(Unreachable):
        FileTelemetry(tmp_path).events(since_ns=0)
    (tmp_path / "policy.jsonl").unlink()
    os.mkfifo(tmp_path / "policy.jsonl")
    assert FileTelemetry(tmp_path).events(since_ns=0).events == ()
