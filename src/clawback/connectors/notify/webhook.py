"""Any receiver: the notice as JSON, signed. Any `2xx` is taken for its word.

`X-Clawback-Signature: v1=HEX`, HMAC-SHA256 under the shared secret of `v1:TIMESTAMP:BODY`, the time being that of
`X-Clawback-Timestamp` (Unix seconds): refuse one that is minutes old. `Idempotency-Key` is the same when a message is
sent again.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from dataclasses import asdict

from clawback.connectors.notify import Message
from clawback.reports.notice import render, text
from clawback.world.notices import Notice

__all__ = ["took", "write"]


def write(notice: Notice, *, key: str, secret: str, now: float) -> Message:
    """See `Channel.write`."""
    body = json.dumps({"id": key, **asdict(notice), "text": render(notice, text)}).encode()
    stamp = str(int(now))
    mac = hmac.new(secret.encode(), b"v1:" + stamp.encode() + b":" + body, hashlib.sha256).hexdigest()
    return Message(
        body=body,
        headers={
            "Content-Type": "application/json",
            "Idempotency-Key": hashlib.sha256(key.encode()).hexdigest(),
            "X-Clawback-Timestamp": stamp,
            "X-Clawback-Signature": f"v1={mac}",
        },
    )


def took(status: int, body: bytes, notice: Notice) -> bool:
    """See `Channel.took`."""
    del body, notice
    return 200 <= status < 300
