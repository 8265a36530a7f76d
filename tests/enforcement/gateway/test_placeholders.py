"""Placeholders in headers, where values may go, and answers from which they are blotted out."""

from __future__ import annotations

import asyncio
import base64
import json
from urllib.parse import quote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clawback.enforcement.gateway.asking import Credential, NoAnswerError
from clawback.enforcement.gateway.placeholders import MisusedError, fill, may_go
from clawback.enforcement.gateway.scrub import Scrubber
from clawback.enforcement.gateway.target import Target

TARGET = Target(method="GET", host="api.test", port=443, path="/v1", secure=True)
VALUE = "the/value+of=it"


async def known(name: str) -> Credential:
    if name not in {"api", "API_KEY"}:
        raise NoAnswerError("the agent has no such placeholder")
    return Credential(VALUE, ("api.test",))


def filled(*headers: tuple[bytes, bytes], target: Target = TARGET):
    return asyncio.run(fill(list(headers), target, known))


def test_nothing_to_fill_is_left_alone():
    assert filled((b"authorization", b"Bearer clawback:resolv:api"), (b"accept-encoding", b"gzip")) is None


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (b"Bearer clawback:resolve:api", b"Bearer " + VALUE.encode()),
        (b"openshell:resolve:env:API_KEY", VALUE.encode()),
        (b"a clawback:resolve:api, b clawback:resolve:api.", f"a {VALUE}, b {VALUE}.".encode()),
        (
            b"Basic " + base64.b64encode(b"me:clawback:resolve:api"),
            b"Basic " + base64.b64encode(b"me:" + VALUE.encode()),
        ),
        (b"Basic not base64 clawback:resolve:api", b"Basic not base64 " + VALUE.encode()),
    ],
)
def test_a_header_is_filled(value, expected):
    found = filled((b"authorization", value), (b"accept-encoding", b"gzip"), (b"range", b"bytes=0-3"))
    assert found is not None
    assert found.headers == [(b"authorization", expected), (b"accept-encoding", b"identity")]
    assert VALUE.encode() in found.secrets
    assert VALUE not in repr(found)


@pytest.mark.parametrize(
    "path", ["/?k=clawback:resolve:api", "/clawback%3Aresolve%3Aapi", "/x?openshell:resolve:env:API_KEY"]
)
def test_a_placeholder_in_a_url_is_refused(path):
    with pytest.raises(MisusedError, match="in a URL"):
        filled(target=Target(method="GET", host="api.test", port=443, path=path, secure=True))


@pytest.mark.parametrize(
    "target",
    [
        Target(method="GET", host="evil.test", port=443, path="/", secure=True),
        Target(method="GET", host="api.test", port=8443, path="/", secure=True),
        Target(method="GET", host="api.test", port=443, path="/", secure=False),
        Target(method="GET", host="x.api.test", port=443, path="/", secure=True),
    ],
)
def test_a_value_goes_nowhere_else(target):
    with pytest.raises(MisusedError, match="is not for"):
        filled((b"x-api-key", b"clawback:resolve:api"), target=target)


def test_an_unknown_one_stands_for_nothing():
    with pytest.raises(NoAnswerError):
        filled((b"x-api-key", b"clawback:resolve:nobody"))


@pytest.mark.parametrize(
    ("hosts", "target", "expected"),
    [
        (("*.api.test",), ("x.api.test", 443, True), True),
        (("*.api.test",), ("api.test", 443, True), False),
        (("*.api.test",), ("evilapi.test", 443, True), False),
        (("api.test:8443",), ("api.test", 8443, True), True),
        (("http://api.test:80",), ("api.test", 80, False), True),
        (("http://api.test",), ("api.test", 80, True), False),
        (("api.test",), ("api.test", 443, False), False),
        (("",), ("api.test", 443, True), False),
        (("*",), ("api.test", 443, True), False),
        ((), ("api.test", 443, True), False),
    ],
)
def test_where_it_may_go(hosts, target, expected):
    host, port, secure = target
    assert may_go(hosts, Target(method="GET", host=host, port=port, path="/", secure=secure)) is expected


@settings(max_examples=300, deadline=None)
@given(st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=6, max_size=40), st.data())
def test_no_form_of_it_comes_through_however_it_is_cut(secret, data):
    raw = secret.encode()
    forms = (raw, json.dumps(secret)[1:-1].encode(), quote(secret, safe="").encode(), raw.hex().encode(),
             base64.b64encode(b"user:" + raw), base64.b64encode(b"ab" + raw + b"c"))  # fmt: skip
    text = b"<<" + b"><".join(forms) + b">>"
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=6)))
    pieces = [text[start:end] for start, end in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    scrubber = Scrubber((raw,))
    out = b"".join([*(scrubber.feed(piece) for piece in pieces), scrubber.end()])
    assert len(out) == len(text)
    assert raw not in out
    assert scrubber.found >= 2
    for encoded in (forms[4], forms[5]):
        middle = encoded[4:-6]  # what its neighbours share letters with may stay
        assert len(middle) < 4 or middle not in out


@settings(max_examples=200, deadline=None)
@given(st.lists(st.binary(max_size=50), max_size=8))
def test_an_answer_without_it_is_as_it_was(pieces):
    scrubber = Scrubber((b"not-in-any-of-them",))
    out = b"".join([*map(scrubber.feed, pieces), scrubber.end()])
    assert out == b"".join(pieces)
    assert scrubber.found == 0


def test_what_cannot_begin_one_is_not_held_back():
    scrubber = Scrubber((b"secret-value",))
    assert scrubber.feed(b"data: hello\n\n") == b"data: hello\n\n"
    assert scrubber.feed(b"data: sec") == b"data: "
    assert scrubber.feed(b"tor") == b"sector"
