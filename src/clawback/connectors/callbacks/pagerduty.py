"""PagerDuty: a note on an incident (`incident.annotated` of V3 webhooks), signed by the subscription's secret.

Signature: `X-PagerDuty-Signature`, a list of `v1=` and the hexadecimal HMAC-SHA256 of the body, one for each secret in
use. It has no time in it: that an answer counts once is the nonce's doing.
"""

from __future__ import annotations

from collections.abc import Mapping

from clawback.connectors.callbacks import Said, json_of, said_in, signed
from clawback.errors import InvalidInput, Refused

__all__ = ["read"]

_SIGNATURES = 8


def read(body: bytes, headers: Mapping[str, str], secret: bytes, now: float) -> Said:
    """See `Channel.read`; the user is PagerDuty's, `P…`."""
    del now
    given = [part.strip() for part in headers.get("x-pagerduty-signature", "").split(",")[:_SIGNATURES]]
    if not any(_right(secret, body, part) for part in given):
        raise Refused("the signature is not PagerDuty's")
    event = json_of(body).get("event")
    if not isinstance(event, dict) or event.get("event_type") != "incident.annotated":
        raise InvalidInput("not a note on an incident")
    data, agent = event.get("data"), event.get("agent")
    note = data.get("content") if isinstance(data, dict) else None
    user = agent.get("id") if isinstance(agent, dict) and agent.get("type") == "user_reference" else None
    return said_in(note, user)


def _right(secret: bytes, body: bytes, part: str) -> bool:
    version, _, given = part.partition("=")
    try:
        return version == "v1" and signed(secret, body, bytes.fromhex(given))
    except ValueError:
        return False
