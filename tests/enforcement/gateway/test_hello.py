"""The first bytes of TLS, whole, in pieces, and damaged."""

from __future__ import annotations

import ssl
from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clawback.enforcement.gateway.hello import MAX_HELLO, HelloError, read_hello


@cache
def hello(name: str | None) -> bytes:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = name is not None
    if name is None:
        context.verify_mode = ssl.CERT_NONE
    out = ssl.MemoryBIO()
    tls = context.wrap_bio(ssl.MemoryBIO(), out, server_hostname=name)
    with pytest.raises(ssl.SSLWantReadError):
        tls.do_handshake()
    return out.read()


def records(data: bytes, size: int) -> bytes:
    """The same handshake message in records of another size."""
    message = data[5:]
    pieces = [message[at : at + size] for at in range(0, len(message), size)]
    return b"".join(b"\x16\x03\x01" + len(piece).to_bytes(2, "big") + piece for piece in pieces)


@pytest.mark.parametrize("name", ["api.example.com", "a" * 60 + ".test", "xn--bcher-kva.example"])
def test_the_name_is_read_however_it_is_cut(name):
    whole = hello(name)
    for data in (whole, records(whole, 1), records(whole, 7), records(whole, 100)):
        assert read_hello(data).name == name
        assert all(read_hello(data[:at]) is None for at in range(1, len(data)))


def test_without_a_name_there_is_none():
    assert read_hello(hello(None)).name == ""


@pytest.mark.parametrize("data", [b"GET / HTTP/1.1", b"\x15\x03\x01\x00\x02\x02\x28", b"\x16\x02\x00\x00\x01\x01"])
def test_what_is_not_tls_is_said_not_to_be(data):
    with pytest.raises(HelloError):
        read_hello(data)


def test_it_does_not_read_for_ever():
    endless = (b"\x16\x03\x01\x40\x00" + b"\x01\xff\xff\xff" + b"x" * 16_380) * 3
    with pytest.raises(HelloError, match="above"):
        read_hello(endless[: MAX_HELLO + 5])


def test_two_names_are_refused():
    data = hello("a.test")
    at = data.index(b"\x00\x09\x00\x00\x06a.test")
    one = data[at + 2 : at + 11]
    two = one + one
    grown = data[:at] + len(two).to_bytes(2, "big") + two + data[at + 11 :]

    def longer(place: int, size: int, by: int) -> None:
        nonlocal grown
        value = int.from_bytes(grown[place : place + size], "big") + by
        grown = grown[:place] + value.to_bytes(size, "big") + grown[place + size :]

    longer(at - 2, 2, 9)  # the extension
    longer(3, 2, 9)  # the record
    longer(6, 3, 9)  # the message
    session = grown[43]
    suites = 44 + session
    length = suites + 2 + int.from_bytes(grown[suites : suites + 2], "big")
    longer(length + 1 + grown[length], 2, 9)  # all extensions
    with pytest.raises(HelloError, match="more than one"):
        read_hello(grown)


@settings(max_examples=500, deadline=None)
@given(st.binary(max_size=300), st.integers(0, 600), st.integers(0, 8))
def test_damage_is_an_error_or_a_name_and_nothing_else(piece, at, cut):
    whole = hello("api.example.com")
    data = whole[:at] + piece + whole[at + cut :]
    try:
        read_hello(data)
    except HelloError:
        pass
