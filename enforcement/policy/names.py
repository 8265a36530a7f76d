"""Host names, addresses and URL paths in one spelling each, so that a rule and a request mean the same thing.

What two parsers could read differently is refused (`AmbiguousError`), never guessed.
"""

from __future__ import annotations

import ipaddress
import re
from functools import lru_cache
from urllib.parse import unquote_to_bytes

import idna

__all__ = ["AmbiguousError", "address_of", "normal_host", "normal_path", "path_glob"]

_LABEL = re.compile(r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?")
_NUMBER = re.compile(r"0[xX][0-9a-fA-F]*|[0-9]+")
_ESCAPE = re.compile(r"%(?![0-9a-fA-F]{2})")


class AmbiguousError(ValueError):
    """A host or path that readers may understand differently; the text says why."""


Address = ipaddress.IPv4Address | ipaddress.IPv6Address


def _plain(address: Address) -> Address:
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address


def _ipv4(host: str) -> ipaddress.IPv4Address:
    """An IPv4 literal in any spelling that inet_aton or a browser takes: 127.1, 0x7f000001, 2130706433, 0177.0.0.1."""
    values: list[int] = []
    for part in host.split("."):
        if not _NUMBER.fullmatch(part):
            raise AmbiguousError("looks like an address and is none")
        try:
            if part[:2] in ("0x", "0X"):
                values.append(int(part[2:] or "0", 16))
            else:
                values.append(int(part, 8 if part.startswith("0") and len(part) > 1 else 10))
        except ValueError:
            raise AmbiguousError("looks like an address and is none") from None
    if len(values) > 4 or any(value > 255 for value in values[:-1]) or values[-1] >= 256 ** (5 - len(values)):
        raise AmbiguousError("looks like an address and is none")
    number = values[-1]
    for at, value in enumerate(values[:-1]):
        number += value << (8 * (3 - at))
    return ipaddress.IPv4Address(number)


def address_of(host: str) -> Address | None:
    """The address that a normal host spells, None for a name."""
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


@lru_cache(maxsize=4096)
def normal_host(host: str) -> str:
    """Lower case, no trailing dot, punycode; an address in its shortest form, IPv6 without brackets.

    >>> normal_host("API.Example.COM."), normal_host("0x7f.1"), normal_host("[::ffff:127.0.0.1]")
    ('api.example.com', '127.0.0.1', '127.0.0.1')
    """
    if not host or len(host) > 512:
        raise AmbiguousError("no host, or one too long")
    if host.startswith("[") or ":" in host:
        inner = host[1:-1] if host.startswith("[") and host.endswith("]") else host
        try:
            address = ipaddress.IPv6Address(inner)
        except ValueError:
            raise AmbiguousError("not an IPv6 address") from None
        if address.scope_id is not None:
            raise AmbiguousError("an address with a zone")
        return str(_plain(address))
    name = host
    if not name.isascii():
        try:
            name = idna.encode(name.rstrip("."), uts46=True, std3_rules=True).decode()
        except (idna.IDNAError, UnicodeError):
            raise AmbiguousError("not an international domain name") from None
    name = name.lower().removesuffix(".")
    labels = name.split(".")
    if _NUMBER.fullmatch(labels[-1]):
        return str(_ipv4(name))
    if len(name) > 253 or not all(_LABEL.fullmatch(label) for label in labels):
        raise AmbiguousError("not a host name")
    return name


def normal_path(target: str) -> str:
    """A request's path, decoded once and without its query, for matching.

    Refused: a dot segment, an empty segment, an encoded slash or backslash, a parameter (`;`), double encoding, control
    characters, bytes that are not UTF-8 (overlong forms too): servers disagree about what each of these names.
    """
    path = target.partition("?")[0]
    if not path.startswith("/"):
        raise AmbiguousError("path does not start with /")
    if len(path) > 8192 or not path.isascii():
        raise AmbiguousError("path too long or not ASCII")
    if _ESCAPE.search(path):
        raise AmbiguousError("path has a broken % escape")
    lowered = path.lower()
    if "%2f" in lowered or "%5c" in lowered or "\\" in path:
        raise AmbiguousError("path has an encoded slash or a backslash")
    try:
        decoded = unquote_to_bytes(path).decode()
    except UnicodeDecodeError:
        raise AmbiguousError("path is not UTF-8") from None
    if not decoded.isprintable() or "#" in path:
        raise AmbiguousError("path has control characters")
    if "%" in decoded and re.search(r"%[0-9a-fA-F]{2}", decoded):
        raise AmbiguousError("path is encoded twice")
    if ";" in decoded:
        raise AmbiguousError("path has parameters")
    segments = decoded.split("/")[1:]
    if "" in segments[:-1]:
        raise AmbiguousError("path has an empty segment")
    if any(segment in (".", "..") for segment in segments):
        raise AmbiguousError("path has a dot segment")
    return decoded


@lru_cache(maxsize=4096)
def path_glob(pattern: str) -> re.Pattern[str]:
    """`*` is any run within one segment, `**` any run at all; everything else is itself."""
    parts = re.split(r"(\*+)", pattern)
    return re.compile("".join(_wild(part) if part[:1] == "*" else re.escape(part) for part in parts), re.DOTALL)


def _wild(stars: str) -> str:
    return "[^/]*" if stars == "*" else ".*"
