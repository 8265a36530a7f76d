from __future__ import annotations

import json
import os
import threading
from pathlib import Path

import pytest

from clawback.enforcement.telemetry.writer import TelemetryWriter
from clawback.model import Disposition, FileActivity, KernelActivity, Lifecycle, Source
from clawback.model.ocsf import LINE_LIMIT, parse_line


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def writer(tmp_path: Path, clock: Clock):
    made = TelemetryWriter(tmp_path / "telemetry", Source.SANDBOX, clock=clock)
    yield made
    made.close()


def lines(writer: TelemetryWriter) -> list[dict]:
    return [json.loads(line) for line in writer.path.read_bytes().splitlines()]


def deny(writer: TelemetryWriter, agent: str = "a", **fields):
    return writer.emit(
        KernelActivity,
        agent=agent,
        instance="i",
        syscall="ptrace",
        activity_id=KernelActivity.INVOKE,
        disposition=Disposition.BLOCKED,
        **fields,
    )


def test_one_line_per_event_numbered_from_one(writer):
    events = [deny(writer), deny(writer)]
    assert [event.sequence for event in events] == [1, 2]
    assert len(lines(writer)) == 2
    assert len(writer.writer) == 8


def test_a_renamed_file_is_left_and_a_new_one_begun(writer):
    deny(writer)
    writer.path.rename(writer.path.with_suffix(".1"))
    deny(writer)
    assert len(lines(writer)) == 1
    writer.path.unlink()
    deny(writer)
    assert len(lines(writer)) == 1


def test_a_flood_is_bounded_counted_and_refills(writer, clock):
    for _ in range(20_000):
        deny(writer)
    assert len(lines(writer)) == 1000
    assert writer.violations.last_hour("a") == 20_000
    assert writer.take_lost("a") == 19_000
    assert writer.take_lost("a") == 0
    clock.now += 1.0
    assert sum(deny(writer) is not None for _ in range(500)) == 200


def test_a_flood_of_one_kind_or_agent_hides_no_other(writer):
    for _ in range(2000):
        deny(writer)
    assert deny(writer, agent="b") is not None
    assert (
        writer.emit(FileActivity, agent="a", instance="i", path="/root/.aws/credentials", access="canary") is not None
    )
    assert writer.emit(Lifecycle, agent="a", instance="i", component="sandbox", status="alive") is not None


def test_violations_leave_after_an_hour(writer, clock):
    deny(writer)
    clock.now += 30 * 60
    deny(writer)
    clock.now += 31 * 60
    assert writer.violations.last_hour("a") == 1


@pytest.mark.parametrize("hostile", ["x" * 1_000_000, "\ud800" * 20_000, "\n\r\0" * 20_000, "\U0001f600" * 20_000])
def test_a_long_or_odd_text_is_cut_and_stays_one_line(writer, hostile):
    writer.emit(FileActivity, agent="a", instance="i", path=hostile, message=hostile, exe=hostile)
    raw = writer.path.read_bytes()
    assert raw.count(b"\n") == 1
    assert len(raw) <= LINE_LIMIT
    parse_line(raw.rstrip(b"\n"), Source.SANDBOX)


def test_a_full_disk_loses_and_says_so(writer):
    full = os.open("/dev/full", os.O_WRONLY)
    os.close(writer._fd)
    writer._fd = full
    writer._follow_rotation = lambda: None  # keep the full device in place of the file
    assert deny(writer) is None
    assert writer.take_lost("a") == 1
    del writer._follow_rotation
    assert deny(writer).sequence == 2


def test_a_short_write_spoils_no_other_line(writer, monkeypatch):
    write = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: write(fd, data[:20]))
    assert deny(writer) is None
    monkeypatch.undo()
    assert deny(writer) is not None
    torn, whole = writer.path.read_bytes().splitlines()
    assert len(torn) == 20
    json.loads(whole)


def test_threads_and_two_writers_share_a_file(tmp_path):
    writers = [TelemetryWriter(tmp_path, Source.POLICY) for _ in range(2)]
    threads = [
        threading.Thread(target=lambda one=one: [deny(one, agent="a") for _ in range(200)]) for one in writers * 2
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(lines(writers[0])) == 800
    for one in writers:
        one.close()


def test_the_file_is_not_reached_through_a_link(tmp_path):
    (tmp_path / "sandbox.jsonl").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match="Too many levels"):
        TelemetryWriter(tmp_path, Source.SANDBOX)
    assert not (tmp_path / "elsewhere").exists()
