from __future__ import annotations

import json

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from clawback import log

SECRETS = [
    "hvs.CAESIJlW3vVqYzVnT0tEV0lQxyz",
    "ghp_0123456789abcdefghijklmnopqrstuvwxyz",
    "xoxb-1234567890-abcdefghij",
    "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.c2lnbmF0dXJl",
    "-----BEGIN RSA PRIVATE KEY-----\nMIIE\n-----END RSA PRIVATE KEY-----",
    "Authorization: Bearer abcdefghijklmnopqrstuvwxyz",
    "password=correct-horse-battery",
    "https://user:hunter2hunter2@host/",
    '"SecretAccessKey": "wJalrXUtnFEMIK7MDENGbPxRfiCYEXAMPLEKEY"',
]


@pytest.mark.parametrize("secret", SECRETS)
def test_known_secrets_do_not_survive(secret):
    assert log.REDACTED in log.redact_text(f"before {secret} after")


@given(st.text("://@ab=s.kBhv-", max_size=12) | st.sampled_from(["://a:b@", "://aa:b@", "://a:b"]))
def test_what_is_too_short_to_hold_a_secret_is_so_by_the_patterns(text):
    assert log.redact_text(text) == log._SECRET_TEXT.sub(log.REDACTED, text)


@given(st.recursive(st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=20))
def test_redaction_keeps_the_shape(value):
    assert type(log.redact(value)) is type(value) or isinstance(value, tuple)
    json.dumps(log.redact(value))


def test_a_secret_in_an_exception_is_taken_out(capsys):
    log.configure(json=True)
    try:
        raise ValueError("token=abcdefghijklmnop")
    except ValueError:
        structlog.get_logger().exception("it broke", password="hunter2hunter2")
    said = capsys.readouterr().err
    assert "abcdefghijklmnop" not in said
    assert "hunter2" not in said
    assert "it broke" in said
