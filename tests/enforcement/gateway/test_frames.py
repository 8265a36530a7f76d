"""WebSocket frames from a hostile client, whole and in pieces."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clawback.enforcement.gateway.websocket import FrameError, Frames


def frame(opcode: int, payload: bytes) -> bytes:
    size = len(payload)
    if size < 126:
        head = bytes((0x80 | opcode, 0x80 | size))
    elif size < 65_536:
        head = bytes((0x80 | opcode, 0xFE)) + size.to_bytes(2, "big")
    else:
        head = bytes((0x80 | opcode, 0xFF)) + size.to_bytes(8, "big")
    return head + b"mask" + payload


def fed(data: bytes, cuts: list[int], *, may_send: bool) -> bool:
    frames = Frames(may_send=may_send)
    edges = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    try:
        for start, end in itertools.pairwise(edges):
            frames.check(data[start:end])
    except FrameError:
        return False
    return True


MESSAGES = st.lists(st.tuples(st.sampled_from((0, 1, 2, 8, 9, 10)), st.integers(0, 300)), max_size=6)


@settings(max_examples=300, deadline=None)
@given(MESSAGES, st.lists(st.integers(0, 2000), max_size=6))
def test_however_frames_are_cut_they_mean_the_same(messages, cuts):
    sound = [(opcode, size if opcode < 8 else size % 126) for opcode, size in messages]
    data = b"".join(frame(opcode, b"\x81" * size) for opcode, size in sound)
    assert fed(data, cuts, may_send=True)
    assert fed(data, cuts, may_send=False) is all(opcode >= 8 for opcode, _ in sound)


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=60), st.lists(st.integers(0, 60), max_size=4))
def test_noise_is_judged_alike_whole_and_in_pieces(data, cuts):
    for may_send in (True, False):
        assert fed(data, cuts, may_send=may_send) is fed(data, [], may_send=may_send)


def test_a_long_message_needs_no_memory():
    frames = Frames(may_send=True)
    frames.check(b"\x82\xff" + (1 << 40).to_bytes(8, "big") + b"mask")
    for _ in range(100):
        frames.check(b"x" * 65_536)
    assert len(frames._header) == 0


@pytest.mark.parametrize("data", [b"\x88\x7e", b"\x08\x80", b"\x83\x80", b"\x81\x01", b"\x91\x80", b"GET / HTTP/1.1"])
def test_what_is_no_clients_frame(data):
    assert fed(data, [], may_send=True) is False
