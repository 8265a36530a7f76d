"""Finds what is sensitive in a request's text: secrets, e-mail addresses, payment cards, account numbers.

A recogniser, and no proof of the opposite: what is spelled out, cut in pieces or enciphered passes it. What it cannot
read counts as sensitive.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Iterator
from typing import Any
from urllib.parse import unquote_plus

from clawback.log import redact_text

__all__ = ["examine", "sensitive"]

_DEEPEST = 64
_ORDER = ("secret", "email-address", "payment-card", "iban", "unreadable")
_STEP = 8 * 1024
_OVERLAP = 2 * 1024  # characters that two steps share: more than anything takes that is told by its form
_EMAIL = re.compile(r"[A-Za-z0-9._%+-]{1,64}@[A-Za-z0-9-]{1,63}(?:\.[A-Za-z0-9-]{1,63}){0,8}\.[A-Za-z]{2,24}\b")
# ISO/IEC 7812: 12 to 19 digits, written in groups by blanks or dashes; shorter than 13 no scheme issues.
_CARD = re.compile(r"(?<![0-9])[2-6][0-9](?:[ -]?[0-9]){11,17}(?![0-9])")
# ISO 13616: two letters, two check digits, up to 30 characters, often in groups of four.
_IBAN = re.compile(r"(?<![A-Z0-9])[A-Z]{2}[0-9]{2}(?: ?[A-Z0-9]){11,30}", re.IGNORECASE | re.ASCII)
# Characters of each country's, by SWIFT's IBAN registry.
_LENGTHS = {
    country: int(length)
    for length, countries in (
        line.split(": ")
        for line in (
            "15: NO", "16: BE", "18: DK FI FK FO GL NL SD", "19: MK SI", "20: AT BA EE KZ LT LU MN XK",
            "21: CH HR LI LV", "22: BG BH CR DE GB GE IE ME RS VA", "23: AE GI IL IQ OM SO TL",
            "24: AD CZ ES MD PK RO SA SE SK TN VG", "25: LY PT ST", "26: IS TR", "27: BI DJ FR GR IT MC MR SM",
            "28: AL AZ BY CY DO GT HN HU LB NI PL SV", "29: BR EG PS QA UA", "30: JO KW MU YE", "31: MT SC",
            "32: LC", "33: RU",
        )
    )
    for country in countries.split()
}  # fmt: skip
_ENCODED = re.compile(r"[A-Za-z0-9+/_-]{512}")


def sensitive(body: bytes, path: str = "") -> tuple[str, ...]:
    """Kinds that were found, in a fixed order: `secret`, `email-address`, `payment-card`, `iban`, `unreadable`.

    JSON is read as its strings are meant, keys too; `path` is the request's, whose query may carry text as well.
    """
    found: tuple[str, ...] = ()
    for known in examine(body, path):
        found = known
    return found


def examine(body: bytes, path: str = "") -> Iterator[tuple[str, ...]]:
    """The same in steps of a few milliseconds, each with what has been found so far: others have to be served too."""
    text, found = _text(body)
    text = f"{unquote_plus(path)}\n{text}"
    for at in range(0, len(text), _STEP):
        found |= _kinds(text[max(0, at - _OVERLAP) : at + _STEP])
        yield tuple(kind for kind in _ORDER if kind in found)


def _text(body: bytes) -> tuple[str, set[str]]:
    """All that it says, one thing a line; and what is found by that alone."""
    try:
        text = body.decode().lstrip("\ufeff")
    except UnicodeDecodeError:
        return "", {"unreadable"}
    found = {"unreadable"} if "\0" in text else set()  # UTF-16 and the like, which servers guess
    start = text.lstrip(" \t\r\n")[:1]
    if start and start in '{["':
        try:
            said = json.loads(text, object_pairs_hook=_Pairs, parse_int=str, parse_float=str)
            return "\n".join(_strings(said, 0)), found
        except (ValueError, RecursionError):
            return text, {"unreadable"}
    return (f"{text}\n{unquote_plus(text)}" if "%" in text else text), found


class _Pairs(list[tuple[str, Any]]):
    """An object with every one of its keys, those that stand twice too."""


def _strings(value: Any, depth: int) -> Iterator[str]:
    if depth > _DEEPEST:
        raise ValueError("nested too deep")
    if isinstance(value, str):
        yield value
    elif isinstance(value, _Pairs):
        for key, item in value:
            # Together, as a key says of its value what it is.
            yield f"{key}: {item}" if isinstance(item, str) else key
            yield from _strings(item, depth + 1)
    elif isinstance(value, list):
        for item in value:
            yield from _strings(item, depth + 1)


def _kinds(text: str) -> set[str]:
    text = unicodedata.normalize("NFKC", text)  # wide digits and letters are digits and letters
    if not text.isascii():
        text = "".join(c for c in text if unicodedata.category(c) != "Cf")  # and invisible characters are nothing
    found = set()
    if redact_text(text) != text:
        found.add("secret")
    if "@" in text and _EMAIL.search(text):
        found.add("email-address")
    if any(_luhn(match[0]) for match in _CARD.finditer(text)):
        found.add("payment-card")
    if any(_mod97(match[0]) for match in _IBAN.finditer(text)):
        found.add("iban")
    if _ENCODED.search(text):
        found.add("unreadable")
    return found


def _luhn(written: str) -> bool:
    """ISO/IEC 7812-1, annex B."""
    total = 0
    for place, digit in enumerate(reversed([int(c) for c in written if c.isdigit()])):
        doubled = digit * 2 if place % 2 else digit
        total += doubled - 9 if doubled > 9 else doubled
    return total % 10 == 0


def _mod97(written: str) -> bool:
    """ISO 7064 MOD 97-10, over as many characters as the country's have: a match may run into the words behind it."""
    code = written.replace(" ", "").upper()
    length = _LENGTHS.get(code[:2], 0)
    if not 0 < length <= len(code):
        return False
    return int("".join(str(int(c, 36)) for c in code[4:length] + code[:4])) % 97 == 1
