"""Reads where a request wants to go, and refuses what an upstream could understand differently from the gateway."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

import h11

from clawback.enforcement.policy.names import AmbiguousError, normal_host

__all__ = ["BadRequestError", "Target", "authority_of", "bodiless", "forwarded_headers", "split_url", "target_of"]

_PORT = re.compile(r"[1-9][0-9]{0,4}")
# Hop-by-hop (RFC 9110, 7.6.1), what the gateway sets itself, and what the proxy alone is told.
_DROPPED = frozenset(
    (b"connection", b"content-length", b"expect", b"host", b"http2-settings", b"keep-alive", b"proxy-authenticate")
) | {b"proxy-authorization", b"proxy-connection", b"te", b"trailer", b"transfer-encoding", b"upgrade"}
# Frameworks take these for the real method or path, which would pass by the policy.
_OVERRIDES = frozenset(
    (b"x-http-method", b"x-http-method-override", b"x-method-override", b"x-original-url", b"x-rewrite-url")
)


class BadRequestError(Exception):
    """Not answered by policy but by the protocol: the status and why."""

    def __init__(self, reason: str, status: int = 400) -> None:
        super().__init__(reason)
        self.reason = reason
        self.status = status


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """`host` is normal (see `policy.names`); `path` is as sent, with its query, and empty for CONNECT.

    `secure`: it came in TLS that ended here, and goes out in TLS.
    """

    method: str
    host: str
    port: int
    path: str
    secure: bool = False

    @property
    def authority(self) -> str:
        """For a Host header."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == (443 if self.secure else 80) else f"{host}:{self.port}"


def target_of(request: h11.Request, inside: Target | None = None) -> Target:
    """Where the request goes. Host and target must name the same place.

    `inside` is the CONNECT that it came through, where TLS ended in the gateway: it can lead nowhere else.
    """
    method = request.method.decode("ascii")
    line = request.target.decode("latin-1")
    names = [name for name, _ in request.headers]
    if not line.isascii():
        raise BadRequestError("request target is not ASCII")
    if _OVERRIDES.intersection(names):
        raise BadRequestError("method and path override headers are not accepted")
    framed = b"transfer-encoding" in names
    if framed and b"content-length" in names:
        raise BadRequestError("both Content-Length and Transfer-Encoding")
    if framed and request.http_version < b"1.1":
        raise BadRequestError("Transfer-Encoding in HTTP/1.0")
    if method == "CONNECT":
        if inside is not None:
            raise BadRequestError("CONNECT inside a tunnel")
        if framed or any(name == b"content-length" and value != b"0" for name, value in request.headers):
            raise BadRequestError("CONNECT with a body")
        host, port = authority_of(line, default=None)
        path = ""
        default = port
    elif inside is not None:
        if not line.startswith("/") or "#" in line:
            raise BadRequestError("inside TLS a request names a path alone")
        host, port, path, default = inside.host, inside.port, line, 443
    else:
        host, port, path = split_url(line)
        default = 80
    for name, value in request.headers:
        if name == b"host" and authority_of(value.decode("latin-1"), default=default) != (host, port):
            raise BadRequestError("Host header and request target differ")
    return Target(method=method, host=host, port=port, path=path, secure=inside is not None)


def bodiless(request: h11.Request) -> bool:
    """Nothing comes behind its head."""
    return not any(
        name == b"transfer-encoding" or (name == b"content-length" and value.strip(b"0"))
        for name, value in request.headers
    )


def split_url(url: str) -> tuple[str, int, str]:
    """Normal host, port, and path with query, of an absolute http URL."""
    scheme, _, rest = url.partition("://")
    if not rest:
        raise BadRequestError("not a proxy request: send the whole URL, or CONNECT")
    if scheme.lower() != "http":
        raise BadRequestError("only http URLs; use CONNECT for others")
    if "#" in rest:
        raise BadRequestError("fragment in the request target")
    cut = min((at for at in (rest.find("/"), rest.find("?")) if at >= 0), default=len(rest))
    host, port = authority_of(rest[:cut], default=80)
    return host, port, rest[cut:] if rest[cut : cut + 1] == "/" else f"/{rest[cut:]}"


def forwarded_headers(headers: Iterable[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """The end-to-end headers: none of the hop-by-hop ones, nor those that `Connection` names."""
    dropped, headers = set(_DROPPED), list(headers)
    for name, value in headers:
        if name == b"connection":
            dropped.update(token.strip().lower() for token in value.split(b","))
    return [(name, value) for name, value in headers if name not in dropped]


def authority_of(text: str, *, default: int | None) -> tuple[str, int]:
    """Normal host and port of `HOST[:PORT]`; without a default the port must be there."""
    if "@" in text:
        raise BadRequestError("user information in the address")
    if text.startswith("["):
        name, bracket, rest = text.partition("]")
        name += bracket
    else:
        name, colon, rest = text.partition(":")
        rest = colon + rest
    if not rest:
        if default is None:
            raise BadRequestError("CONNECT without a port")
        port = default
    elif rest.startswith(":") and _PORT.fullmatch(rest[1:]) and int(rest[1:]) <= 65_535:
        port = int(rest[1:])
    else:
        raise BadRequestError("not a port")
    try:
        return normal_host(name), port
    except AmbiguousError as error:
        raise BadRequestError(f"host refused: {error}") from None
