"""OpenShell's globs: of hosts (parts between dots), of paths (between slashes), of query values and tools (dots)."""

from __future__ import annotations

import re
from functools import lru_cache

__all__ = ["glob", "host_glob"]


@lru_cache(maxsize=4096)
def glob(pattern: str, separator: str = "/") -> re.Pattern[str]:
    """For `fullmatch`. `*` and `?` stop at the separator; `**` crosses it where it is a whole part, as in
    OPA's globs; `[…]` is a class of characters, `[!…]` its opposite. `ValueError` for a class that does not end.

    >>> bool(glob("/repos/**").fullmatch("/repos/a/b")), bool(glob("/repos/**").fullmatch("/repos"))
    (True, False)
    """
    parts = (".*" if part == "**" else _part(part, separator) for part in _split(pattern, separator))
    return re.compile(re.escape(separator).join(parts), re.DOTALL)


def host_glob(pattern: str) -> re.Pattern[str]:
    """Of a normal host name, in which only `*` and `**` mean anything."""
    return glob(pattern, ".")


def _split(pattern: str, separator: str) -> list[str]:
    """At separators outside classes."""
    parts, inside = [""], False
    for character in pattern:
        if character == separator and not inside:
            parts.append("")
            continue
        inside = character != "]" if inside else character == "["
        parts[-1] += character
    if inside:
        raise ValueError("a class of characters that does not end")
    return parts


def _part(part: str, separator: str) -> str:
    other = f"[^{re.escape(separator)}]"
    found: list[str] = []
    at = 0
    while at < len(part):
        character = part[at]
        if character == "*":
            if not found or found[-1] != other + "*":  # `**` beside other characters is `*`
                found.append(other + "*")
        elif character == "?":
            found.append(other)
        elif character == "[":
            end = part.index("]", at)
            body = part[at + 1 : end]
            negated = body[:1] in ("!", "^")
            body = re.sub(r"([\\\[&~|^])", r"\\\1", body[1:] if negated else body)
            if not body:
                raise ValueError("an empty class of characters")
            found.append(f"(?!{re.escape(separator)})[{'^' if negated else ''}{body}]")
            at = end
        else:
            found.append(re.escape(character))
        at += 1
    return "".join(found)
