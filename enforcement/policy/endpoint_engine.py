"""Decides by OpenShell's rules: binary, destination, method, path, content. Any enforced deny wins over any allow."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from urllib.parse import parse_qsl

from clawback.enforcement.policy.contents import ContentError, calls, matches
from clawback.enforcement.policy.endpoints import Endpoint, EndpointRule, RequestMatch, Values
from clawback.enforcement.policy.globs import glob, host_glob
from clawback.enforcement.policy.names import AmbiguousError, address_of, normal_path
from clawback.enforcement.policy.verdict import Verdict

__all__ = ["Endpoints", "Programs"]

Programs = Sequence[Sequence[str]]
"""Of each process that holds the connection: its program's path, then its ancestors'."""

_BLIND = ("", "tcp")
_CONTENT = ("graphql", "mcp", "json-rpc")
_MOST_SAID = 16
_ENCODED_SLASH = re.compile(r"%2f", re.IGNORECASE)
_SLASH_LIKE = "%E2%88%95"  # one character that no pattern takes for a slash
_Pair = tuple[EndpointRule, Endpoint]


@dataclass(frozen=True, slots=True)
class _Asked:
    """One request in the forms that matchers see. `paths` are the readings of it: a denial of one is a denial."""

    method: str
    raw: str
    body: bytes | None


class Endpoints:
    """The rules of one policy, sorted by port and host so that most of them need not be looked at."""

    def __init__(self, rules: Iterable[EndpointRule]) -> None:
        self._exact: dict[tuple[str, int], list[_Pair]] = {}
        self._wild: dict[int, list[_Pair]] = {}
        for rule in rules:
            for endpoint in rule.endpoints:
                for port in endpoint.ports:
                    if endpoint.host and "*" not in endpoint.host:
                        self._exact.setdefault((endpoint.host, port), []).append((rule, endpoint))
                    else:
                        self._wild.setdefault(port, []).append((rule, endpoint))

    def decide(
        self, host: str, port: int, method: str, path: str, programs: Programs | None, body: bytes | None
    ) -> Verdict:
        """`host` is normal, `method` upper case. See `engine.decide`."""
        there = [*self._exact.get((host, port), ())]
        there += [
            pair
            for pair in self._wild.get(port, ())
            if (host_glob(pair[1].host).fullmatch(host) and address_of(host) is None if pair[1].host else True)
        ]
        if not there:
            return Verdict(False, "", "no rule allows it")
        if programs is None:
            return Verdict(False, there[0][0].key, "which program calls is not known", "binary", wants_caller=True)
        pairs = [pair for pair in there if _may(pair[0], programs)]
        if not pairs:
            return Verdict(False, there[0][0].key, f"no rule for {host} names the calling program", "binary")
        networks = tuple(dict.fromkeys(network for _, endpoint in pairs for network in endpoint.allowed_ips))
        if method == "CONNECT":
            rule = pairs[0][0].key
            if all(endpoint.protocol in _BLIND for _, endpoint in pairs):
                sealed = any(endpoint.tls == "skip" for _, endpoint in pairs)
                return Verdict(True, rule, "allowed by rule", networks=networks, sealed=sealed)
            return Verdict(True, rule, "allowed by rule, to be looked into", inspect=True, networks=networks)
        return _request(pairs, _Asked(method, path, body))._replace(networks=networks)


def _may(rule: EndpointRule, programs: Programs) -> bool:
    """Every process that has the connection open is, or comes from, a program that the rule names."""
    return bool(programs) and all(
        any(glob(pattern).fullmatch(path) for pattern in rule.binaries for path in paths) for paths in programs
    )


def _request(pairs: Sequence[_Pair], asked: _Asked) -> Verdict:
    chosen, why = _for_path(pairs, asked)
    if not chosen:
        return Verdict(False, pairs[0][0].key, why, "path")
    allowed: Verdict | None = None
    watched: Verdict | None = None
    refused: Verdict | None = None
    for rule, endpoint in chosen:
        verdict = _by(rule, endpoint, asked)
        if verdict.wants_body:
            return verdict
        if not verdict.allowed and endpoint.enforce and verdict.denied:
            return verdict
        if verdict.allowed:
            allowed = allowed or verdict
        elif not endpoint.enforce:
            watched = watched or verdict
        else:
            refused = refused or verdict
    if allowed is not None:
        return allowed if watched is None or not watched.denied else _audited(watched)
    if watched is not None:
        return _audited(watched)
    return refused or Verdict(False, pairs[0][0].key, "no rule allows it")


def _audited(verdict: Verdict) -> Verdict:
    return verdict._replace(allowed=True, audit=True, reason=f"audit: would be denied: {verdict.reason}")


def _for_path(pairs: Sequence[_Pair], asked: _Asked) -> tuple[list[_Pair], str]:
    """The endpoints that are for this path: the most specific ones."""
    best, why = -1, "no endpoint is for this path"
    found: list[_Pair] = []
    for pair in pairs:
        pattern = pair[1].path
        size = 0
        if pattern:
            try:
                plain = _readings(asked.raw, pair[1])[0]
            except AmbiguousError as error:
                why = str(error)
                continue
            if not glob(pattern).fullmatch(plain):
                continue
            size = len(pattern)
        if size > best:
            best, found = size, []
        if size == best:
            found.append(pair)
    return found, why


def _by(rule: EndpointRule, endpoint: Endpoint, asked: _Asked) -> Verdict:
    if endpoint.protocol in _BLIND:
        return Verdict(True, rule.key, "allowed by rule")
    if endpoint.protocol in _CONTENT:
        return _content(rule, endpoint, asked)
    try:
        readings = _readings(asked.raw, endpoint)
        query = _query(asked.raw)
    except (AmbiguousError, ValueError) as error:
        return Verdict(False, rule.key, str(error), "path", denied=True)
    for matcher in endpoint.deny:
        if not matcher.operation and _fits(matcher, asked.method, readings, query, every=False):
            level = "path" if matcher.path or matcher.query else "method"
            return Verdict(False, rule.key, "denied by rule", level, denied=True)
    near = "method"
    for matcher in endpoint.allow:
        if matcher.operation or matcher.method not in {"*", asked.method}:
            continue
        near = "path"
        if _fits(matcher, asked.method, readings[:1], query, every=True):
            level = "path" if matcher.path or matcher.query else "method" if matcher.method != "*" else "destination"
            upgrade = _upgrade(endpoint, readings, query) if endpoint.protocol == "websocket" else ""
            return Verdict(True, rule.key, "allowed by rule", level, upgrade=upgrade)
    return Verdict(False, rule.key, f"{near} not in rule {rule.key}", near)


def _upgrade(endpoint: Endpoint, readings: Sequence[str], query: dict[str, list[str]]) -> str:
    """`write` where messages are allowed as such; where only some operations in them are, none: they are not read."""
    text = "WEBSOCKET_TEXT"
    if any(one.operation or _fits(one, text, readings, query, every=False) for one in endpoint.deny):
        return "read"
    some = (one for one in endpoint.allow if not one.operation)
    return "write" if any(_fits(one, text, readings[:1], query, every=True) for one in some) else "read"


def _content(rule: EndpointRule, endpoint: Endpoint, asked: _Asked) -> Verdict:
    if asked.body is None:
        return Verdict(False, rule.key, "the content has not been seen", "content", wants_body=endpoint.max_body)
    try:
        found = calls(endpoint, asked.method, asked.raw, asked.body)
    except ContentError as error:
        return Verdict(False, rule.key, str(error), "content", denied=True)
    said = tuple(call.what for call in found[:_MOST_SAID])
    for call in found:
        if any(matches(matcher, call, every=False) for matcher in endpoint.deny):
            return Verdict(False, rule.key, f"{call.what} denied by rule", "content", denied=True, calls=said)
    for call in found:
        if not (endpoint.all_mcp_methods or any(matches(matcher, call, every=True) for matcher in endpoint.allow)):
            return Verdict(False, rule.key, f"{call.what} not in rule {rule.key}", "content", calls=said)
    return Verdict(True, rule.key, "allowed by rule", "content", calls=said)


def _readings(raw: str, endpoint: Endpoint) -> tuple[str, ...]:
    """The path decoded; where an encoded slash is accepted, as a character first and then as the slash that a server
    may take it for.
    """
    if not endpoint.encoded_slash or not _ENCODED_SLASH.search(raw.partition("?")[0]):
        return (normal_path(raw),)
    path = raw.partition("?")[0]
    return normal_path(_ENCODED_SLASH.sub(_SLASH_LIKE, path)), normal_path(_ENCODED_SLASH.sub("/", path))


def _query(raw: str) -> dict[str, list[str]]:
    """Parameter → its values. `ValueError` for what servers read differently."""
    text = raw.partition("?")[2]
    if not text:
        return {}
    if ";" in text or len(text) > 16_384:
        raise AmbiguousError("query with ; or too long")
    found: dict[str, list[str]] = {}
    for name, value in parse_qsl(
        text, keep_blank_values=True, strict_parsing=False, max_num_fields=256, errors="strict"
    ):
        found.setdefault(name, []).append(value)
    return found


def _fits(
    matcher: RequestMatch, method: str, paths: Sequence[str], query: dict[str, list[str]], *, every: bool
) -> bool:
    if matcher.method not in {"*", method}:
        return False
    if matcher.path and not any(glob(matcher.path).fullmatch(path) for path in paths):
        return False
    return _values(matcher.query, query, every=every)


def _values(wanted: Values, query: dict[str, list[str]], *, every: bool) -> bool:
    """To allow, every value of each parameter must match and be there; to deny, one value of each is enough."""
    for name, patterns in wanted:
        values = query.get(name, [])
        hits = [any(glob(pattern, ".").fullmatch(value) for pattern in patterns) for value in values]
        if not hits or not (all(hits) if every else any(hits)):
            return False
    return True
