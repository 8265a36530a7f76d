"""Microsoft Teams: a message that mentions an outgoing webhook, signed by the token that Teams showed at its making.

Signature: `Authorization: HMAC` and the base64 of the HMAC-SHA256 of the body, under the base64-decoded token. It has
no time in it: that an answer counts once is the nonce's doing.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping

from clawback.connectors.callbacks import Said, json_of, said_in, signed
from clawback.errors import InvalidInput, Refused

__all__ = ["read"]


def read(body: bytes, headers: Mapping[str, str], secret: bytes, now: float) -> Said:
    """See `Channel.read`; the user is the sender's Entra object id."""
    del now
    scheme, _, given = headers.get("authorization", "").partition(" ")
    try:
        key = base64.b64decode(secret, validate=True)
    except ValueError:
        raise InvalidInput("the secret is no token of Teams'", hint="it is base64, as Teams showed it") from None
    try:
        mac = base64.b64decode(given, validate=True)
    except ValueError:  # binascii.Error is one
        raise Refused("not signed") from None
    if scheme != "HMAC" or not signed(key, body, mac):
        raise Refused("the signature is not Teams'")
    message = json_of(body)
    sender = message.get("from")
    return said_in(message.get("text"), sender.get("aadObjectId") if isinstance(sender, dict) else None)
