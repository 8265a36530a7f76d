"""Slack: a button of a message that was pressed (interactive `block_actions`), signed by the app's signing secret.

Signature: `v0=` and the hexadecimal HMAC-SHA256 of `v0:TIMESTAMP:BODY`; a time stamp more than five minutes away is
refused, as Slack's documentation asks. The button's value is `grant APR-… NONCE` or `deny APR-… NONCE`.
"""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import parse_qs

from clawback.connectors.callbacks import Said, json_of, said_in, signed
from clawback.errors import InvalidInput, Refused

__all__ = ["read"]

_SECONDS = 300


def read(body: bytes, headers: Mapping[str, str], secret: bytes, now: float) -> Said:
    """See `Channel.read`; the user is Slack's, `U…`."""
    stamp = headers.get("x-slack-request-timestamp", "")
    version, _, given = headers.get("x-slack-signature", "").partition("=")
    try:
        at, mac = int(stamp), bytes.fromhex(given)
    except ValueError:
        raise Refused("not signed") from None
    if version != "v0" or not signed(secret, b"v0:" + stamp.encode() + b":" + body, mac):
        raise Refused("the signature is not Slack's")
    if abs(now - at) > _SECONDS:
        raise Refused("signed too long ago")
    fields = parse_qs(body.decode("utf-8", "replace"), max_num_fields=8)
    message = json_of(fields.get("payload", [""])[0])
    actions, user = message.get("actions"), message.get("user")
    if message.get("type") != "block_actions" or not isinstance(actions, list) or len(actions) != 1:
        raise InvalidInput("not one pressed button")
    value = actions[0].get("value") if isinstance(actions[0], dict) else None
    return said_in(value, user.get("id") if isinstance(user, dict) else None)
