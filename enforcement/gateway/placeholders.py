"""Puts credentials in the place of what agents hold instead of them: in request headers, for their own hosts alone."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass

from clawback.enforcement.gateway.asking import Credential
from clawback.enforcement.gateway.given import PLACEHOLDER
from clawback.enforcement.gateway.target import BadRequestError, Target, authority_of

__all__ = ["Filled", "MisusedError", "fill", "may_go", "mentioned"]

_TOKEN = re.compile(
    rb"(?:%s|openshell:resolve:env:)([A-Za-z0-9_](?:[A-Za-z0-9_.-]{0,126}[A-Za-z0-9_-])?)" % PLACEHOLDER.encode()
)
_IN_URL = re.compile(r"(?:clawback|openshell)(?::|%3a)resolve(?::|%3a)", re.IGNORECASE)
_MOST = 8
# Without these the answer could come in a form, or in pieces, in which the credential cannot be found.
_DROPPED = frozenset((b"accept-encoding", b"range", b"if-range"))
Headers = list[tuple[bytes, bytes]]


class MisusedError(Exception):
    """A placeholder is somewhere it must not be; the text says which and where."""


@dataclass(frozen=True, slots=True, repr=False)
class Filled:
    """Headers with values in them, and the values, as they stand there."""

    headers: Headers
    secrets: tuple[bytes, ...]


def mentioned(headers: Iterable[tuple[bytes, bytes]]) -> tuple[str, ...]:
    """Names of the credentials whose placeholders stand in the headers, each once."""
    found = (match[1] for _, value in headers for match in _TOKEN.finditer(_opened(value)))
    return tuple(name.decode() for name in dict.fromkeys(found))


async def fill(headers: Headers, target: Target, credential: Callable[[str], Awaitable[Credential]]) -> Filled | None:
    """The headers as they leave; None where they have no placeholder. `MisusedError`: nothing may leave."""
    if _IN_URL.search(target.path):
        raise MisusedError(f"a credential's placeholder in a URL to {target.host}")
    names = mentioned(headers)
    if not names:
        return None
    if len(names) > _MOST:
        raise MisusedError(f"{len(names)} placeholders in one request")
    values: dict[bytes, bytes] = {}
    for name in names:
        found = await credential(name)
        if not may_go(found.hosts, target):
            raise MisusedError(f"the credential {name} is not for {_place(target)}")
        values[name.encode()] = found.value.encode("ascii")
    filled: Headers = []
    secrets = list(values.values())
    for key, value in headers:
        if key in _DROPPED:
            continue
        filled.append((key, _filled(value, values)))
        if filled[-1][1] != value and value[:6].lower() == b"basic ":
            secrets.append(filled[-1][1][6:])
    filled.append((b"accept-encoding", b"identity"))
    return Filled(filled, tuple(secrets))


def may_go(hosts: Iterable[str], target: Target) -> bool:
    """Whether one of `HOST[:PORT]` (TLS) or `http://HOST[:PORT]` is the target; `*.` before a host: any below it."""
    for text in hosts:
        plain = text.startswith("http://")
        if plain == target.secure:
            continue
        rest = text.removeprefix("http://").removeprefix("https://")
        below = rest.startswith("*.")
        try:
            host, port = authority_of(rest.removeprefix("*."), default=80 if plain else 443)
        except BadRequestError:
            continue  # what cannot be read allows nothing
        named = target.host.endswith(f".{host}") if below else target.host == host
        if named and port == target.port:
            return True
    return False


def _place(target: Target) -> str:
    return f"{'https' if target.secure else 'http'}://{target.host}:{target.port}"


def _opened(value: bytes) -> bytes:
    """A Basic header's user and password, any other value itself."""
    if value[:6].lower() != b"basic ":
        return value
    try:
        return base64.b64decode(value[6:].strip(), validate=True)
    except (binascii.Error, ValueError):
        return value


def _filled(value: bytes, values: dict[bytes, bytes]) -> bytes:
    opened = _opened(value)
    new = _TOKEN.sub(lambda match: values[match[1]], opened)
    if new == opened or opened is value:
        return new if opened is value else value
    return b"Basic " + base64.b64encode(new)
