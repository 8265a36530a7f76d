"""A call that was made or is to be tried, as host, port, method and path; and what a whole policy says to it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import urlsplit

from clawback.enforcement.policy.engine import Engine
from clawback.enforcement.policy.names import AmbiguousError, normal_host, normal_path
from clawback.enforcement.policy.types import NetworkPolicy
from clawback.enforcement.policy.verdict import Verdict
from clawback.errors import InvalidInput
from clawback.model import Attempt

__all__ = ["Asked", "asked", "pattern_of", "says"]

_PORTS = {"http": 80, "https": 443, "ws": 80, "wss": 443}
_SOME_DIGIT = re.compile(r"[0-9]")


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """One call. `method` is CONNECT for a tunnel, whose `path` is empty; else `path` is normal and has no query."""

    host: str
    port: int
    method: str
    path: str = ""

    @property
    def tunnel(self) -> bool:
        """Nothing is known of what is inside."""
        return self.method == "CONNECT"


def asked(attempt: Attempt) -> Asked:
    """The call of an `http` or `connect` attempt. `InvalidInput` for another kind, or what no request could say."""
    try:
        if attempt.kind == "connect":
            host, _, port = attempt.target.rpartition(":")
            return Asked(host=normal_host(host), port=_port(port), method="CONNECT")
        if attempt.kind == "http":
            method, _, url = attempt.target.partition(" ")
            parts = urlsplit(url)
            return Asked(
                host=normal_host(parts.hostname or ""),
                port=parts.port or _PORTS.get(parts.scheme, 0),
                method=method.upper(),
                path=normal_path(parts.path or "/"),
            )
    except ValueError as error:  # AmbiguousError is one
        raise InvalidInput(
            f"{attempt.kind} {attempt.target[:80]!a}: {error}", hint="HOST:PORT, or METHOD URL"
        ) from None
    raise InvalidInput(f"{attempt.kind[:20]!a} is not for the gateway", hint="kind is http or connect")


def _port(text: str) -> int:
    if not (text.isascii() and text.isdigit() and 0 < int(text) <= 65_535):
        raise AmbiguousError("not a port")
    return int(text)


def pattern_of(path: str) -> str:
    """A path as a rule may name it, where its numbered parts stand for all such: `/v1/tickets/1207` → `/v1/tickets/*`.

    Empty where it has characters that patterns read otherwise.
    """
    if any(character in path for character in "*?[]{}!"):
        return ""
    return "/".join("*" if _SOME_DIGIT.search(part) and not _version(part) else part for part in path.split("/"))


def _version(part: str) -> bool:
    return bool(re.fullmatch(r"v[0-9]{1,2}", part))


def says(network: NetworkPolicy, call: Asked) -> Verdict:
    """What the policy says. Where its rules name programs: allowed if any program that they name is."""
    engine = Engine(network)

    def decide(programs: tuple[tuple[str, ...], ...] | None) -> Verdict:
        return engine.decide(
            host=call.host, port=call.port, method=call.method, path=call.path or "/", programs=programs
        )

    if not network.rules:
        return decide(None)
    binaries = dict.fromkeys(binary for rule in network.rules for binary in rule.binaries)
    verdict = decide(((),))
    for binary in binaries:  # a pattern matches itself
        verdict = decide(((binary,),))
        if verdict.allowed or verdict.wants_body:
            break
    return verdict._replace(allowed=True) if verdict.wants_body else verdict
