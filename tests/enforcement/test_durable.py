"""Small files: whole or not at all, and what was changed behind us is not taken for what was written."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clawback.enforcement import durable
from clawback.errors import InvalidInput


@settings(max_examples=50, deadline=None)
@given(
    body=st.binary(max_size=300).filter(lambda x: not x.endswith(b"\n")),
    place=st.integers(0, 10_000),
    bit=st.integers(0, 7),
)
def test_what_is_written_is_read_and_with_any_bit_changed_it_is_not_said_to_be_that(
    tmp_path_factory: pytest.TempPathFactory, body: bytes, place: int, bit: int
) -> None:
    path = tmp_path_factory.mktemp("durable") / "one.json"
    durable.write(path, "format/1", body)
    assert durable.read(path, "format/1") == durable.read(path) == body
    with pytest.raises(InvalidInput):
        durable.read(path, "format/2")
    raw = bytearray(path.read_bytes())
    raw[place % len(raw)] ^= 1 << bit
    path.write_bytes(raw)
    try:
        assert durable.read(path, "format/1") == body
    except InvalidInput:
        pass


def test_what_could_not_be_read_again_is_not_written(tmp_path: Path) -> None:
    path = tmp_path / "one.json"
    durable.write(path, "f", b"{}")
    with pytest.raises(InvalidInput, match="bytes"):
        durable.write(path, "f", b"x" * (8 << 20))
    assert durable.read(path, "f") == b"{}"
    most = json.dumps("x" * (7 << 20)).encode()
    durable.write(path, "f", most)
    assert durable.read(path, "f") == most
