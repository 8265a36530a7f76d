"""The recogniser of sensitive text: hits, near misses, and what it cannot read."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clawback.enforcement.policy.sensitive import sensitive


def prompt(text: str) -> bytes:
    return json.dumps({"model": "m", "max_tokens": 100000, "messages": [{"role": "user", "content": text}]}).encode()


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("my key is hvs.CAESIabcdefghijklmnopqrstuv", "secret"),
        ("-----BEGIN RSA PRIVATE KEY-----\nMIIE", "secret"),
        ("password: hunter2hunter2", "secret"),
        ("write to anna.b+c@mail.example.co.uk now", "email-address"),
        ("anna\uff20mail.example", "email-address"),
        ("an\u200bna@mail.ex\u200bample", "email-address"),
        ("pay with 4111111111111111", "payment-card"),
        ("pay with 4111 1111 1111 1111.", "payment-card"),
        ("pay with 3782-822463-10005", "payment-card"),
        ("\uff14111111111111111", "payment-card"),
        ("GB82 WEST 1234 5698 7654 32", "iban"),
        ("send it to DE89370400440532013000, please", "iban"),
        ("to de89 3704 0044 0532 0130 00 AND THEN SOME MORE", "iban"),
        ("A" * 512, "unreadable"),
    ],
)
def test_it_is_found_in_json_as_it_is_meant(text: str, kind: str) -> None:
    assert kind in sensitive(prompt(text))
    escaped = "".join(f"\\u{ord(c):04x}" for c in text)
    assert kind in sensitive(b'{"content": "' + escaped.encode() + b'"}')
    assert kind in sensitive(text.encode())


@pytest.mark.parametrize(
    "text",
    ["", "hello", "what is 1234567890123456?", "4111111111111112", "order 4111111111111111000000000", "a@b",
     "x @ y.example",
     "GB82 WEST 1234 5698 7654 33", "ZZ82 WEST 1234 5698 7654 32", "reset my password", "token counts matter"],
)  # fmt: skip
def test_near_misses(text: str) -> None:
    assert sensitive(prompt(text)) == ()


@pytest.mark.parametrize(
    "body",
    [b"\xff\xfe", "héllo".encode("latin-1"), "{}".encode("utf-16"), b"{\0}", b"{broken", b"[" * 100_000,
     b'{"a": "b"} {}'],
)  # fmt: skip
def test_what_cannot_be_read_is_sensitive(body: bytes) -> None:
    assert "unreadable" in sensitive(body)


def test_keys_count_and_so_does_every_one_of_two_that_are_the_same() -> None:
    assert sensitive(b'{"a@mail.example": 1}') == ("email-address",)
    assert sensitive(b'{"x": "a\\u0040mail.example", "x": "harmless"}') == ("email-address",)
    assert sensitive(b'{"pass\\u0077ord": "hunter2hunter2"}') == ("secret",)


def test_forms_and_queries_are_decoded() -> None:
    assert sensitive(b"q=a%40mail.example") == ("email-address",)
    assert sensitive(b"", "/v1?q=4111+1111+1111+1111") == ("payment-card",)


@given(st.binary(max_size=400))
@settings(deadline=None)
def test_no_body_breaks_it(body: bytes) -> None:
    sensitive(body, body.decode("latin-1"))


@given(st.text(max_size=60), st.text(max_size=60))
@settings(deadline=None)
def test_a_card_in_any_text_is_found(before: str, after: str) -> None:
    digits = "0123456789"
    near = lambda text, at: text[at] in digits + " -" if text else False  # noqa: E731
    before, after = before if not near(before, -1) else before + ".", after if not near(after, 0) else "." + after
    if not before.isascii() or not after.isascii():  # other scripts' digits, and signs that become digits
        before, after = before + "x", "x" + after
    assert "payment-card" in sensitive(prompt(f"{before}5555555555554444{after}"))
