"""Answers to approvals that come by a chat: each channel's file verifies who signed a request, and reads what it says.

A file here is a channel: `read(body, headers, secret, now)` returns what was said, or raises. The signature is looked
at before anything else is, in constant time; a body is at most `MAX_BODY` bytes and is never executed or shown.
"""

from __future__ import annotations

import hashlib
import hmac
import importlib
import json
import pkgutil
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from clawback.errors import InvalidInput, NotFound, Refused

__all__ = ["MAX_BODY", "Channel", "Said", "channel", "channels", "json_of", "said_in", "signed"]

MAX_BODY = 64 * 1024
_WORDS = re.compile(r"\b(grant|deny)\s+(APR-[0-9A-F]{12})[\s:]+([0-9a-f]{32})\b", re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """An answer: which question, its nonce, yes or no, and the channel's own id of whoever gave it."""

    approval: str
    nonce: str
    grant: bool
    user: str


class Channel(Protocol):
    """A module of this folder."""

    def read(self, body: bytes, headers: Mapping[str, str], secret: bytes, now: float) -> Said:
        """What was said. `Refused` where the signature is not right or too old, `InvalidInput` where it says nothing.

        Header names are lower case; `now` is Unix seconds.
        """
        ...


def channels() -> tuple[str, ...]:
    """Names of the channels there are."""
    return tuple(sorted(found.name for found in pkgutil.iter_modules(__path__)))


def channel(name: str) -> Channel:
    """One of them. `NotFound` for another name."""
    if name not in channels():
        raise NotFound(f"no channel {name[:40]!a}", hint=f"there are {', '.join(channels())}")
    module: Any = importlib.import_module(f"{__name__}.{name}")
    found: Channel = module
    return found


def signed(secret: bytes, message: bytes, given: bytes) -> bool:
    """Whether `given` is the HMAC-SHA256 of the message under this secret."""
    return hmac.compare_digest(hmac.digest(secret, message, hashlib.sha256), given)


def json_of(text: str | bytes) -> dict[str, Any]:
    """A JSON object. `InvalidInput` for anything else."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise InvalidInput("the body is no JSON object")
    return value


def said_in(text: object, user: object) -> Said:
    """The answer in a sentence: `grant APR-… NONCE` or `deny APR-… NONCE`, whatever stands around it."""
    found = _WORDS.search(text[:4000]) if isinstance(text, str) else None
    if found is None:
        raise InvalidInput("no answer in it", hint="grant APR-… NONCE, or deny APR-… NONCE")
    if not isinstance(user, str) or not 0 < len(user) <= 200:
        raise Refused("it does not say whose answer it is")
    verb, approval, nonce = found.groups()
    return Said(approval=approval.upper(), nonce=nonce.lower(), grant=verb.lower() == "grant", user=user)
