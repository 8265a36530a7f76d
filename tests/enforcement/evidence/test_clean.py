"""What must never be in a bundle, in the forms that agents and tools write it."""

from __future__ import annotations

import base64
import urllib.parse

import pytest

from clawback.enforcement.evidence.clean import Cleaner

VALUE = "correct horse/battery+staple"


@pytest.mark.parametrize(
    "text",
    [
        VALUE,
        f"the key is {VALUE}!",
        base64.b64encode(VALUE.encode()).decode(),
        urllib.parse.quote(VALUE, safe=""),
        urllib.parse.quote_plus(VALUE),
    ],
)
def test_known_values_go_in_every_form(text):
    cleaned = Cleaner([VALUE + "\n"]).text(text)
    assert text[-12:-2] not in cleaned
    assert "[redacted]" in cleaned


def test_strings_inside_a_json_secret_go_too():
    cleaner = Cleaner(['{"access_key_id": "AKIAPLANTED", "nested": {"secret_access_key": "planted/value"}}'])
    assert "planted/value" not in cleaner.text("x planted/value y")


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (["tool", "--password=ab"], ["tool", "--password=[redacted]"]),
        (["tool", "--password", "ab", "next"], ["tool", "--password", "[redacted]", "next"]),
        (["tool", "--api-key", "--x"], ["tool", "--api-key", "[redacted]"]),
        (["tool", "TOKEN=abc"], ["tool", "TOKEN=[redacted]"]),
        (["tool", "--path", "/tmp"], ["tool", "--path", "/tmp"]),
    ],
)
def test_command_lines(given, expected):
    cleaner = Cleaner()
    assert cleaner.arguments(given) == expected


def test_names_of_secrets_lose_their_values_at_every_depth():
    cleaned = Cleaner().value({"a": [{"password": "short", "user": "bob"}]})
    assert cleaned == {"a": [{"password": "[redacted]", "user": "bob"}]}


def test_bytes_are_text_and_what_a_name_holds_deeper_down_is_cleaned_too():
    cleaned = Cleaner(["the-very-value"]).value(
        {"token": b"short", "data": b"x the-very-value \xff", "secret": ["the-very-value", {"cookie": "c"}], "pin": 7}
    )
    assert cleaned == {
        "token": "[redacted]",
        "data": "x [redacted] \\xff",
        "secret": ["[redacted]", {"cookie": "[redacted]"}],
        "pin": 7,
    }


def test_control_characters_are_written_out():
    assert Cleaner().text("a\x1b[2Jb\r\x00\n\tc\u202e\udcff") == "a\\x1b[2Jb\\r\\x00\n\tc\\u202e\\udcff"


def test_text_made_to_be_slow_comes_back():
    """With a quadratic pattern each of these takes minutes."""
    for text in ("eyJ-" * 100_000, "-----BEGIN " * 40_000, "password" + " " * 400_000, "s." * 200_000):
        assert len(Cleaner().text(text)) == len(text)
