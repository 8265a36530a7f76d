"""Secrets out of everything before it is written: by look, by the name beside them, and by their very values."""

from __future__ import annotations

import base64
import json
import re
import urllib.parse
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from clawback.log import redact, redact_text

__all__ = ["Cleaner"]

_SHORTEST = 6  # shorter values would take ordinary words out of the evidence
_REDACTED = "[redacted]"
_UNUSUAL = re.compile(r"[^ -~\n\t]")


class Cleaner:
    """`values` are secrets known to be about; their Base64 and URL forms are taken out too."""

    def __init__(self, values: Iterable[str] = ()) -> None:
        forms: set[str] = set()
        for value in values:
            for one in (value, *_strings(value)):
                plain = one.strip()
                if len(plain) >= _SHORTEST:
                    forms |= {plain, urllib.parse.quote(plain, safe=""), urllib.parse.quote_plus(plain)}
                    forms.add(base64.b64encode(plain.encode()).decode().rstrip("="))
                    forms.update(line for line in plain.splitlines() if len(line) >= 16)  # a key's lines, apart
        self._forms = sorted(forms, key=len, reverse=True)
        self._bytes = [form.encode(coding) for form in self._forms for coding in ("utf-8", "utf-16-le")]

    @property
    def longest(self) -> int:
        """Bytes of the longest form that `mask` overwrites; 0 where nothing is known."""
        return max(map(len, self._bytes), default=0)

    def mask(self, data: bytes) -> bytes:
        """Raw memory with the known values overwritten by `*`, every byte in its place."""
        for form in self._bytes:
            if form in data:
                data = data.replace(form, b"*" * len(form))
        return data

    def text(self, text: str) -> str:
        """Without secrets, and safe to look at: control characters and broken encodings are written out."""
        for form in self._forms:
            if form in text:
                text = text.replace(form, _REDACTED)
        return _visible(redact_text(text))

    def value(self, value: Any) -> Any:
        """The same at every depth of a JSON-like value; names of secrets lose what stands beside them."""
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, bytes):
            return self.text(value.decode("utf-8", "backslashreplace"))
        if isinstance(value, Mapping):
            return {self.text(str(key)): self._named(str(key), item) for key, item in value.items()}
        if isinstance(value, (list, tuple, set, frozenset)):
            return [self.value(item) for item in value]
        return value

    def _named(self, name: str, value: Any) -> Any:
        return _REDACTED if isinstance(value, (str, bytes)) and _names_secret(name) else self.value(value)

    def arguments(self, arguments: Sequence[str]) -> list[str]:
        """A command line: `--password=X` and `--password X` lose X however short it is."""
        cleaned: list[str] = []
        hide = False
        for argument in arguments:
            name, equals, _ = argument.partition("=")
            key = name.replace("-", "_")  # options are written with dashes where variables have underscores
            if hide:
                cleaned.append(_REDACTED)
            elif equals and _names_secret(key):
                cleaned.append(f"{self.text(name)}={_REDACTED}")
            else:
                cleaned.append(self.text(argument))
            hide = not hide and not equals and argument.startswith("-") and _names_secret(key)
        return cleaned


def _names_secret(key: str) -> bool:
    return bool(redact("", key=key) == _REDACTED)


def _strings(text: str) -> list[str]:
    """The strings in a secret that is a JSON text itself."""
    try:
        value = json.loads(text)
    except ValueError:
        return []
    found: list[str] = []
    queue = [value]
    while queue:
        item = queue.pop()
        if isinstance(item, str):
            found.append(item)
        elif isinstance(item, dict):
            queue.extend(item.values())
        elif isinstance(item, list):
            queue.extend(item)
    return found


def _visible(text: str) -> str:
    return text if text.isprintable() else _UNUSUAL.sub(_written_out, text)


def _written_out(found: re.Match[str]) -> str:
    character = found[0]
    return character if character.isprintable() else ascii(character)[1:-1]
