"""Reads OpenShell's request matchers: what an endpoint's `rules`, `deny_rules` and `access` say of one request."""

from __future__ import annotations

import re

from clawback.enforcement.policy.endpoints import RequestMatch
from clawback.enforcement.policy.globs import glob
from clawback.enforcement.policy.nodes import Item

__all__ = ["checked_glob", "matchers", "preset"]

_READ = ("GET", "HEAD", "OPTIONS")
_WRITE = ("POST", "PUT", "PATCH")
_METHOD = re.compile(r"[A-Z]{1,20}|\*")
_CALL = re.compile(r"[A-Za-z0-9_.$/-]{1,128}")
_KEYS = {
    "rest": ("method", "path", "query"),
    "websocket": ("method", "path", "query", "operation_type", "operation_name", "fields"),
    "graphql": ("operation_type", "operation_name", "fields"),
    "mcp": ("method", "tool", "params"),
    "json-rpc": ("method",),
}


def preset(protocol: str, access: str) -> tuple[RequestMatch, ...]:
    """An access preset written out."""
    if access == "full":
        return (RequestMatch(),)
    wide = access == "read-write"
    if protocol == "graphql":
        return tuple(RequestMatch(operation=kind) for kind in ("query", *(("mutation",) if wide else ())))
    if protocol == "websocket":
        return tuple(RequestMatch(method=method) for method in ("GET", *(("WEBSOCKET_TEXT",) if wide else ())))
    return tuple(RequestMatch(method=method) for method in (*_READ, *(_WRITE if wide else ())))


def matchers(item: Item, protocol: str, *, allow: bool) -> tuple[RequestMatch, ...]:
    """Those of `rules` (each within `allow`) or `deny_rules`."""
    found = []
    for entry in item.list(limit=256):
        place = entry.mapping(("allow",), required=("allow",))["allow"] if allow else entry
        found.append(_matcher(place, protocol))
    return tuple(found)


def _matcher(item: Item, protocol: str) -> RequestMatch:
    found = item.mapping(_KEYS[protocol])
    graphql = protocol == "graphql" or "operation_type" in found
    if graphql and ("method" in found or "path" in found or "query" in found):
        raise item.wrong("matches a request and an operation at once", hint="write two rules")
    if graphql and "operation_type" not in found:
        raise item.wrong("key 'operation_type' is missing", hint="query, mutation or subscription")
    if protocol in ("rest", "websocket") and not graphql:
        for key in ("method", "path"):
            if key not in found:
                raise item.wrong(f"key {key!r} is missing", hint='such as method: GET, path: "/v1/**"')
    if protocol in ("mcp", "json-rpc") and not found:
        raise item.wrong("matches every call", hint="name a method")
    params = dict(_params(found["params"], "")) if "params" in found else {}
    if "tool" in found:
        params["name"] = _values(found["tool"])
    if params and "method" not in found and protocol == "mcp":
        method = "tools/call"
    else:
        method = _method(found["method"], protocol) if "method" in found else "*"
    if params and method != "tools/call":
        raise item.wrong("parameters are those of tools/call", hint="write `method: tools/call`")
    return RequestMatch(
        method=method,
        path=_path(found["path"]) if "path" in found else "",
        query=tuple(sorted((key, _values(value)) for key, value in found["query"].entries(limit=32).items()))
        if "query" in found
        else (),
        operation=found["operation_type"].one_of(("query", "mutation", "subscription")) if graphql else "",
        operation_name=checked_glob(found["operation_name"], ".") if "operation_name" in found else "",
        fields=tuple(checked_glob(entry, ".") for entry in found["fields"].list(limit=64)) if "fields" in found else (),
        params=tuple(sorted(params.items())),
    )


def _method(item: Item, protocol: str) -> str:
    text = item.text(limit=128)
    if protocol == "rest" and not _METHOD.fullmatch(text):
        raise item.wrong("not a method", hint="upper-case, such as GET, or *")
    if protocol == "websocket":
        return item.one_of(("GET", "WEBSOCKET_TEXT", "*"))
    if protocol == "json-rpc" and text != "*" and not _CALL.fullmatch(text):
        raise item.wrong("not a method", hint="exact, such as reports.search, or * for all")
    if protocol == "mcp" and not (_CALL.fullmatch(text) or text.startswith("tools/")):
        raise item.wrong("not an MCP method", hint="exact, such as tools/call; globs only within tools/")
    return checked_glob(item, "/") if protocol == "mcp" else text


def _path(item: Item) -> str:
    text = checked_glob(item, "/")
    if not text.startswith("/") and text != "**":
        raise item.wrong("the path is relative", hint="start it with /; every path is /**")
    return "" if text in ("**", "/**") else text


def _values(item: Item) -> tuple[str, ...]:
    """A glob, or `{any: [globs]}`."""
    if not item.keys():
        return (checked_glob(item, "."),)
    values = tuple(
        checked_glob(entry, ".") for entry in item.mapping(("any",), required=("any",))["any"].list(limit=64)
    )
    if not values:
        raise item.wrong("no values: it would match nothing", hint="name them, or drop the key")
    return values


def _params(item: Item, before: str) -> list[tuple[str, tuple[str, ...]]]:
    """Nested parameters, their names joined by dots."""
    found = []
    for key, value in item.entries(limit=32).items():
        if value.keys() and value.keys() != {"any"}:
            found += _params(value, f"{before}{key}.")
        else:
            found.append((before + key, _values(value)))
    return found


def checked_glob(item: Item, separator: str) -> str:
    """A glob, found sound."""
    text = item.text(limit=1024)
    if text.count("*") > 8:
        raise item.wrong("more than 8 wildcards", hint="write it with fewer")
    try:
        glob(text, separator)
    except ValueError as error:
        raise item.wrong(str(error), hint="close the bracket, or leave it out") from None
    return text
