"""Blots credentials out of an answer as it streams by, each with as many stars: no length changes."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterable
from urllib.parse import quote

__all__ = ["Scrubber"]

_SHORTEST = 6
"""Bytes. Shorter values would blot out what is none of theirs; they are refused as credentials (see `fits`)."""


class Scrubber:
    """Holds back only what may be the beginning of a credential."""

    def __init__(self, secrets: Iterable[bytes]) -> None:
        forms = {form for secret in secrets if len(secret) >= _SHORTEST for form in _forms(secret)}
        self._longest_first = sorted(forms, key=len, reverse=True)
        self._pattern = re.compile(b"|".join(map(re.escape, self._longest_first)) or b"(?!)")
        self._kept = b""
        self.found = 0

    @staticmethod
    def fits(value: str) -> bool:
        """Whether it could be told from other text in an answer."""
        return len(value) >= _SHORTEST

    def whole(self, data: bytes) -> bytes:
        """All there is, such as a header's value."""
        scrubbed, count = self._pattern.subn(lambda match: b"*" * len(match[0]), data)
        self.found += count
        return scrubbed

    def feed(self, data: bytes) -> bytes:
        """What can be passed on of it and of what was kept back."""
        data = self.whole(self._kept + data)
        cut = len(data) - self._beginning(data)
        self._kept = data[cut:]
        return data[:cut]

    def end(self) -> bytes:
        """What was kept back: the beginning of a credential that did not come."""
        kept, self._kept = self._kept, b""
        return kept

    def _beginning(self, data: bytes) -> int:
        """How many of the last bytes may begin a credential."""
        longest = 0
        for form in self._longest_first:
            first = form[:1]
            at = max(0, len(data) - len(form) + 1)
            while (at := data.find(first, at)) >= 0:
                if form.startswith(data[at:]):
                    longest = max(longest, len(data) - at)
                    break
                at += 1
        return longest


def _forms(secret: bytes) -> Iterable[bytes]:
    """As it is, and as answers commonly write what they were sent."""
    yield secret
    text = secret.decode("ascii", "replace")
    yield json.dumps(text)[1:-1].encode()
    yield json.dumps(text)[1:-1].replace("/", "\\/").encode()
    yield quote(text, safe="").encode()
    yield quote(text, safe="").lower().encode()
    yield secret.hex().encode()
    # Base64 of a text that it stands anywhere in: three alignments, without the letters that its neighbours share.
    for shift in range(3):
        encoded = base64.b64encode(b"\0" * shift + secret)
        start = (shift * 8 + 5) // 6 if shift else 0
        whole = ((shift + len(secret)) * 8) // 6
        piece = encoded[start:whole]
        if len(piece) >= _SHORTEST:
            yield piece
            yield piece.replace(b"+", b"-").replace(b"/", b"_")
