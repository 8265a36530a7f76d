"""Reads what a request's body calls: JSON-RPC and MCP methods, GraphQL operations. Bounded, and strict: what two
readers could understand differently is an error.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl

from clawback.enforcement.policy.endpoints import Endpoint, RequestMatch
from clawback.enforcement.policy.globs import glob

__all__ = ["Call", "ContentError", "calls", "matches"]

_MOST_CALLS = 64
_MOST_TOKENS = 2000
_DEEPEST = 16


class ContentError(ValueError):
    """The text says why it is not let through."""


@dataclass(frozen=True, slots=True)
class Call:
    """One call of a body. `params` are its strings and numbers by name, nested ones joined by dots.

    For GraphQL `operation` is its kind, `name` its name and `fields` its top-level fields; for the others it is empty.
    """

    method: str = ""
    params: tuple[tuple[str, str], ...] = ()
    operation: str = ""
    name: str = ""
    fields: tuple[str, ...] = ()

    @property
    def what(self) -> str:
        """For a reason: no longer than people read."""
        return f"{self.operation or self.method} {self.name or dict(self.params).get('name', '')}".strip()[:100]


def calls(endpoint: Endpoint, method: str, raw: str, body: bytes) -> tuple[Call, ...]:
    """All that the request calls; none for one that has no content to call anything with (an MCP stream's GET)."""
    if endpoint.protocol == "graphql":
        return tuple(_graphql(method, raw, body))
    if method in {"GET", "DELETE"} and not body:  # an MCP session's stream, and its end
        return ()
    if method != "POST":
        raise ContentError(f"{method[:20]} carries no {endpoint.protocol} call")
    return tuple(_json_rpc(body))


def matches(matcher: RequestMatch, call: Call, *, every: bool) -> bool:
    """`every`: to allow, all fields must match; to deny, one is enough."""
    if call.operation:
        if matcher.operation not in {"", call.operation}:
            return False
        if matcher.operation_name and not glob(matcher.operation_name, ".").fullmatch(call.name):
            return False
        if not matcher.fields:
            return True
        hits = [any(glob(pattern, ".").fullmatch(field) for pattern in matcher.fields) for field in call.fields]
        return bool(hits) and (all(hits) if every else any(hits))
    if matcher.method != "*" and not glob(matcher.method, "/").fullmatch(call.method):
        return False
    params = dict(call.params)
    return all(
        name in params and any(glob(pattern, ".").fullmatch(params[name]) for pattern in patterns)
        for name, patterns in matcher.params
    )


def _json_rpc(body: bytes) -> Iterator[Call]:
    message = _json(body)
    batch = message if isinstance(message, list) else [message]
    if not 1 <= len(batch) <= _MOST_CALLS:
        raise ContentError(f"{len(batch)} calls in one request")
    for one in batch:
        if not isinstance(one, dict) or one.get("jsonrpc") != "2.0":
            raise ContentError("not a JSON-RPC 2.0 call")
        if "method" not in one:
            if "result" in one or "error" in one:
                continue  # the answer to a call of the server's
            raise ContentError("a call without a method")
        if not isinstance(one["method"], str):
            raise ContentError("a method that is no text")
        params = one.get("params", {})
        yield Call(method=one["method"], params=tuple(_flat(params, "", 0)) if isinstance(params, dict) else ())


def _flat(value: dict[str, Any], before: str, depth: int) -> Iterator[tuple[str, str]]:
    if depth > _DEEPEST:
        raise ContentError("parameters nested too deep")
    for key, item in value.items():
        if isinstance(item, dict):
            yield from _flat(item, f"{before}{key}.", depth + 1)
        elif isinstance(item, str):
            yield before + key, item
        elif isinstance(item, (int, float)):
            yield before + key, json.dumps(item)


def _graphql(method: str, raw: str, body: bytes) -> Iterator[Call]:
    if method == "GET":
        pairs = parse_qsl(raw.partition("?")[2], keep_blank_values=True, max_num_fields=64)
        asked: Any = dict(pairs)
        if len(asked) != len(pairs):
            raise ContentError("a parameter stands twice")
    elif method == "POST":
        if "?" in raw:
            raise ContentError("a GraphQL POST with a query string")
        asked = _json(body)
    else:
        raise ContentError(f"{method[:20]} carries no GraphQL")
    batch = asked if isinstance(asked, list) else [asked]
    if not 1 <= len(batch) <= _MOST_CALLS:
        raise ContentError(f"{len(batch)} operations in one request")
    for one in batch:
        if not isinstance(one, dict) or not isinstance(one.get("query"), str):
            raise ContentError("no GraphQL query; persisted ones cannot be seen")
        name = one.get("operationName") or ""
        yield _operation(one["query"], name if isinstance(name, str) else "", only_queries=method == "GET")


def _operation(text: str, name: str, *, only_queries: bool) -> Call:
    from graphql import GraphQLError, parse
    from graphql.language import OperationDefinitionNode

    try:
        document = parse(text, no_location=True, max_tokens=_MOST_TOKENS)
    except (GraphQLError, RecursionError):
        raise ContentError("not GraphQL, or too much of it") from None
    operations = [node for node in document.definitions if isinstance(node, OperationDefinitionNode)]
    if name:
        operations = [node for node in operations if node.name is not None and node.name.value == name]
    if len(operations) != 1:
        raise ContentError("which operation is asked for is not clear")
    chosen = operations[0]
    kind = chosen.operation.value
    if only_queries and kind != "query":
        raise ContentError(f"a {kind} by GET")
    fields = tuple(_fields(document.definitions, chosen.selection_set.selections, 0))
    return Call(operation=kind, name=chosen.name.value if chosen.name else "", fields=fields)


def _fields(definitions: Sequence[Any], selections: Sequence[Any], depth: int) -> Iterator[str]:
    """Top-level fields by their own names, through fragments: an alias is only what the answer calls it."""
    if depth > _DEEPEST:
        raise ContentError("fragments nested too deep")
    for one in selections:
        if one.kind == "field":
            yield one.name.value
        elif one.kind == "inline_fragment":
            yield from _fields(definitions, one.selection_set.selections, depth + 1)
        else:
            inside = [
                node for node in definitions if node.kind == "fragment_definition" and node.name.value == one.name.value
            ]
            if len(inside) != 1:
                raise ContentError("a fragment that is not there, or stands twice")
            yield from _fields(definitions, inside[0].selection_set.selections, depth + 1)


def _json(body: bytes) -> Any:
    try:
        return json.loads(body.decode(), object_pairs_hook=_once, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        raise ContentError("not JSON, or JSON that is read in more than one way") from None


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Some readers take the first of two equal keys, some the last; and some do not tell case apart."""
    found = dict(pairs)
    if len({key.casefold() for key in found}) != len(pairs):
        raise ValueError("a key stands twice")
    return found


def _no_constant(name: str) -> None:
    raise ValueError(name)
