"""Made-up answers that say yes, in each part's own form, and what they are answers to."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from lies.liar import Answer, Request

__all__ = ["asked", "asked_aws", "aws_done", "nothing", "yes"]


def asked(method: str, *words: str) -> Callable[[Request], bool]:
    """Of this method, with all of these in path or body."""
    return lambda request: request.method == method and request.says(*words)


def asked_aws(action: str, *words: str) -> Callable[[Request], bool]:
    """One call of AWS's query API."""
    return lambda request: f"Action={action}&" in f"{request.body}&" and request.says(*words)


def aws_done(action: str, result: str = "") -> Answer:
    """What IAM answers when it did as it was told; `result` is XML."""
    body = (
        f'<{action}Response xmlns="https://iam.amazonaws.com/doc/2010-05-08/">'
        f"{result and f'<{action}Result>{result}</{action}Result>'}"
        f"<ResponseMetadata><RequestId>00000000</RequestId></ResponseMetadata></{action}Response>"
    )
    return Answer(body.encode(), kind="text/xml")


def yes(value: Any) -> Answer:
    """JSON."""
    return Answer(json.dumps(value).encode())


nothing = Answer(status=204)
