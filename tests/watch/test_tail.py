"""Following a file loses no line and repeats none, whatever happens to the file."""

from __future__ import annotations

import os
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from clawback.model import Source
from clawback.model.ocsf import LINE_LIMIT
from clawback.watch import positions
from clawback.watch.inotify import Inotify
from clawback.watch.lines import Lines
from clawback.watch.tail import Tail


def write(path: Path, text: str, mode: str = "a") -> None:
    with path.open(mode) as file:
        file.write(text)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.binary(max_size=40).map(lambda item: item.replace(b"\n", b"x")), max_size=20), st.data())
def test_lines_come_out_whole_however_the_bytes_are_cut(lines: list[bytes], data: st.DataObject) -> None:
    content = b"".join(line + b"\n" for line in lines)
    cutter, found = Lines(), []
    while content:
        size = data.draw(st.integers(1, len(content)))
        found += list(cutter.feed(content[:size]))
        content = content[size:]
    assert found == [line for line in lines if line]
    assert cutter.consumed == sum(len(line) + 1 for line in lines)


def test_a_line_without_end_is_dropped_and_not_held() -> None:
    lines = Lines()
    found = list(lines.feed(b"a\n"))
    for _ in range(100):
        found += list(lines.feed(b"x" * 60_000))
        assert lines.unfinished <= LINE_LIMIT
    found += list(lines.feed(b"x\nb\n"))
    assert found == [b"a", None, b"b"]


def test_a_half_line_waits_for_its_other_half(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    tail = Tail(path)
    assert list(tail.read()) == []
    write(path, "one\ntw")
    assert list(tail.read()) == [b"one"]
    write(path, "o\n")
    assert list(tail.read()) == [b"two"]
    tail.close()


def test_rotation_loses_nothing(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    write(path, "1\n")
    tail = Tail(path)
    assert list(tail.read()) == [b"1"]
    write(path, "2\n")
    path.rename(tmp_path / "a.jsonl.1")
    assert list(tail.read()) == [b"2"]
    write(path, "3\n")
    write(tmp_path / "a.jsonl.1", "2b\n")
    assert list(tail.read()) == [b"2b", b"3"]
    assert tail.counts["rotated"] == 1
    tail.close()


def test_truncation_starts_again(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    write(path, "one\ntwo\n")
    tail = Tail(path)
    assert list(tail.read()) == [b"one", b"two"]
    write(path, "3\n", "w")
    assert list(tail.read()) == [b"3"]
    assert tail.counts["truncated"] == 1
    tail.close()


def test_a_restart_goes_on_where_it_was_across_rotations(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    write(path, "1\n2\nhal")
    first = Tail(path)
    assert list(first.read()) == [b"1", b"2"]
    place = first.position()
    first.close()
    write(path, "f\n")
    path.rename(tmp_path / "a.jsonl.2")
    write(path, "3\n")
    path.rename(tmp_path / "a.jsonl.1")
    os.utime(tmp_path / "a.jsonl.2", ns=(1, 1))
    write(path, "4\n")
    second = Tail(path, place)
    assert list(second.history(1000)) == [b"1", b"2"]
    assert list(second.read()) == [b"half", b"3", b"4"]
    write(path, "5\n")
    assert list(second.read()) == [b"5"]
    second.close()


def test_without_a_place_rotated_files_are_read_too(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    write(tmp_path / "a.jsonl.1", "1\n")
    os.utime(tmp_path / "a.jsonl.1", ns=(1, 1))
    tail = Tail(path)
    assert list(tail.read()) == [b"1"]
    write(path, "2\n")
    assert list(tail.read()) == [b"2"]
    write(path, "3\n")
    assert list(tail.read()) == [b"3"]
    assert list(tail.read()) == []
    tail.close()


def test_a_file_that_only_has_the_same_inode_is_another(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    write(path, "one\n")
    first = Tail(path)
    list(first.read())
    place = first.position()
    first.close()
    write(path, "uno\ndue\n", "w")
    second = Tail(path, place)
    assert list(second.read()) == [b"uno", b"due"]
    assert second.counts["position-lost"] == 1
    second.close()


def test_stopping_amid_a_chunk_keeps_the_exact_place(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    write(path, "".join(f"{n}\n" for n in range(1000)))
    first = Tail(path)
    reading = first.read()
    got = [next(reading) for _ in range(500)]
    place = first.position()
    first.close()
    second = Tail(path, place)
    assert [int(line) for line in [*got, *second.read()]] == list(range(1000))
    second.close()


def test_neither_links_nor_pipes_are_followed(tmp_path: Path) -> None:
    write(tmp_path / "secret", "s\n")
    (tmp_path / "link.jsonl").symlink_to(tmp_path / "secret")
    os.mkfifo(tmp_path / "pipe.jsonl")
    for name in ("link.jsonl", "pipe.jsonl"):
        tail = Tail(tmp_path / name)
        assert list(tail.read()) == []
        assert tail.counts["unreadable"] == 1


def test_positions_survive_and_rubbish_in_their_file_does_no_harm(tmp_path: Path) -> None:
    path, file = tmp_path / "a.jsonl", tmp_path / "p" / "positions.json"
    write(path, "1\n")
    tail = Tail(path)
    list(tail.read())
    place = tail.position()
    assert place is not None
    tail.close()
    positions.save(file, {Source.SANDBOX: place})
    assert positions.load(file) == {Source.SANDBOX: place}
    for rubbish in ("", "[]", '{"sandbox": {"offset": -1}}', '{"moon": {}}'):
        file.write_text(rubbish)
        assert positions.load(file) == {}


def test_inotify_tells_of_growth_and_new_files(tmp_path: Path) -> None:
    notice = Inotify(tmp_path)
    import select

    poll = select.poll()
    poll.register(notice.fileno(), select.POLLIN)
    assert poll.poll(0) == []
    write(tmp_path / "a", "1")
    assert poll.poll(1000)
    notice.clear()
    assert poll.poll(0) == []
    notice.close()
