"""What a request carries, as orders look at it: the tools that it calls, and whether it is sensitive.

Read to deny: whatever some server may take for a call is one, and what cannot be read is refused by whoever asks. The
policy's own reader (`contents`) is stricter about form, and may be: it reads to allow.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from clawback.enforcement.policy.contents import ContentError
from clawback.enforcement.policy.sensitive import examine

__all__ = ["INSPECTABLE", "Content", "tool_calls"]

INSPECTABLE = 256 * 1024
"""Bytes of a body that an order looks at; longer ones are refused by it."""

_MOST_CALLS = 64
_LONGEST = 1024


class Content:
    """A request's whole body. What is found in it is found once, however often it is asked for.

    `encoded`: in a content coding, so that nothing can be read.
    """

    __slots__ = ("_calls", "_kinds", "data", "encoded", "path")

    def __init__(self, data: bytes, path: str, *, encoded: bool = False) -> None:
        self.data = data
        self.path = path
        self.encoded = encoded
        self._calls: tuple[str, ...] | ContentError | None = None
        self._kinds: tuple[str, ...] | None = None

    @property
    def calls(self) -> tuple[str, ...]:
        """Tools and JSON-RPC methods. `ContentError` where it may be a call and cannot be read."""
        if self._calls is None:
            try:
                self._calls = tool_calls(self._readable())
            except ContentError as error:
                self._calls = error
        if isinstance(self._calls, ContentError):
            raise self._calls
        return self._calls

    @property
    def sensitive(self) -> tuple[str, ...]:
        """What of it is sensitive, in kinds."""
        if self._kinds is None:
            for _ in self.examined():
                pass
        return self._kinds or ()

    def examined(self) -> Iterator[None]:
        """Look for what is sensitive, in short steps; afterwards it is known."""
        found: tuple[str, ...] = ()
        if self.encoded and self.data:
            found = ("unreadable",)
        else:
            for known in examine(self.data, self.path):
                found = known
                yield
        self._kinds = found

    def _readable(self) -> bytes:
        if self.encoded and self.data:
            raise ContentError("an encoded body cannot be looked at")
        return self.data


def tool_calls(body: bytes) -> tuple[str, ...]:
    """Names in lower case: of each `tools/call` its tool, of each other JSON-RPC call its method.

    A body that begins neither as an object nor as a list carries none, whatever it is said to be.
    """
    if b"\0" in body[:4]:
        raise ContentError("not UTF-8, or not text")
    # Some servers put a sign in the place of what is not UTF-8, and read on.
    text = body.decode(errors="replace").lstrip("\ufeff \t\r\n\v\f")
    if text[:1] not in ("{", "["):
        return ()
    try:
        message = json.loads(text, object_pairs_hook=_once)
    except (ValueError, RecursionError):
        raise ContentError("not JSON, or JSON that is read in more than one way") from None
    batch = message if isinstance(message, list) else [message]
    if len(batch) > _MOST_CALLS:
        raise ContentError(f"{len(batch)} calls in one request")
    return tuple(_names(batch))


def _names(batch: list[Any]) -> Iterator[str]:
    for one in batch:
        if not isinstance(one, dict) or "method" not in one:
            continue
        method = one["method"]
        if not isinstance(method, str) or len(method) > _LONGEST:
            raise ContentError("a method that is no text, or too long")
        method = method.strip().casefold()
        if method != "tools/call":
            yield method
            continue
        params = one.get("params")
        tool = params.get("name") if isinstance(params, dict) else None
        if not isinstance(tool, str) or len(tool) > _LONGEST:
            raise ContentError("a tool that is not named, or too long")
        yield tool.strip().casefold()


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Keys in lower case, as some readers do not tell case apart. Of two equal ones some take the first."""
    found = {key.casefold(): value for key, value in pairs}
    if len(found) != len(pairs):
        raise ValueError("a key stands twice")
    return found
