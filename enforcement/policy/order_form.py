"""Orders over the way out, found sound and in one spelling: what two readers could take differently is refused."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import replace

from clawback.enforcement.policy.names import AmbiguousError, address_of, normal_host, normal_path
from clawback.errors import InvalidInput
from clawback.model import EgressOrder, InferenceEndpoint, InferenceMode, OrderKind, Scope, ScopeKind

__all__ = ["ID", "Network", "checked", "checked_endpoint", "network_of"]

ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,126}")
"""What an order may be called: it becomes a file's name, and a rule's in telemetry."""

_METHOD = re.compile(r"[A-Z]{1,20}|\*")
_MOST_WILD = 8
_FIELDS = {
    OrderKind.DESTINATION: ("host", "port"),
    OrderKind.TOOL: ("host", "port", "tool", "method", "path"),
    OrderKind.CONNECTOR: ("host", "port", "path"),
    OrderKind.INFERENCE: ("mode",),
}
_LONGEST = {"id": 127, "reason": 500, "by": 200, "incident": 200, "host": 253, "tool": 256, "path": 1024}
Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def checked(order: EgressOrder) -> EgressOrder:
    """The order in its one spelling. `InvalidInput` names the field."""
    if not ID.fullmatch(order.id):
        raise _wrong("id", "not an order's id", "letters, digits, '.', '_' and '-', at most 127, no dot first")
    if order.kind not in _FIELDS:
        raise _wrong("kind", f"{order.kind} is nothing to order", f"one of {', '.join(_FIELDS)}")
    for key, limit in _LONGEST.items():
        text = getattr(order, key)
        if len(text) > limit or not (text.isprintable() if key != "reason" else "\0" not in text):
            raise _wrong(key, f"above {limit} characters, or not printable", "say it shorter, in plain characters")
    for key in ("reason", "by"):
        if not getattr(order, key).strip():
            raise _wrong(key, "is empty", "an order says why it was given, and by whom")
    for key in ("host", "port", "tool", "method", "path", "mode"):
        if getattr(order, key) and key not in _FIELDS[order.kind]:
            raise _wrong(key, f"is nothing of a {order.kind} order", "leave it out")
    if not 0 <= order.port <= 65_535:
        raise _wrong("port", "not a port", "1 to 65535, or 0 for any")
    order = replace(order, scope=_scope(order.scope))
    match order.kind:
        case OrderKind.DESTINATION:
            return replace(order, host=_destination(order.host))
        case OrderKind.TOOL:
            return _tool(order)
        case OrderKind.CONNECTOR:
            return replace(order, host=_host("host", order.host), path=_prefix("path", order.path))
        case _:
            if order.mode not in tuple(InferenceMode):
                raise _wrong("mode", f"{order.mode[:40]!a} is none", f"one of {', '.join(InferenceMode)}")
            return order


def checked_endpoint(endpoint: InferenceEndpoint, where: str) -> InferenceEndpoint:
    """An inference endpoint in its one spelling; `where` names it in an error."""
    wild = endpoint.host.startswith("*.")
    host = _host(f"{where}.host", endpoint.host.removeprefix("*."))
    if not 0 <= endpoint.port <= 65_535:
        raise _wrong(f"{where}.host", "not a port", "HOST or HOST:PORT")
    if wild and address_of(host) is not None:
        raise _wrong(f"{where}.host", "nothing is below an address", "write the address")
    path = _prefix(f"{where}.path", endpoint.path)
    return replace(endpoint, host=f"*.{host}" if wild else host, path=path)


def network_of(host: str) -> Network | None:
    """The addresses that a checked host spells; None for a name."""
    try:
        return ipaddress.ip_network(host)
    except ValueError:
        return None


def _scope(scope: Scope) -> Scope:
    if scope.kind is ScopeKind.ALL:
        if scope.value:
            raise _wrong("scope", "all agents, and a value", "leave the value out")
    elif not scope.value or len(scope.value) > 200 or not scope.value.isprintable():
        raise _wrong("scope", f"which {scope.kind} is not said", "1 to 200 printable characters")
    return scope


def _destination(text: str) -> str:
    """A name, `*.NAME`, an address, a network, `*`."""
    if text == "*":
        return text
    if "/" in text:
        try:
            network = ipaddress.ip_network(text)
        except ValueError as error:
            raise _wrong("host", f"not a network: {error}", "such as 203.0.113.0/24 or 2001:db8::/32") from None
        first = network.network_address
        if isinstance(first, ipaddress.IPv6Address) and first.ipv4_mapped is not None and network.prefixlen >= 96:
            # Addresses are compared as the IPv4 ones that they are.
            return f"{first.ipv4_mapped}/{network.prefixlen - 96}"
        return str(network)
    if text.startswith("*."):
        host = _host("host", text[2:])
        if address_of(host) is not None:
            raise _wrong("host", "nothing is below an address", "write a network, such as 203.0.113.0/24")
        return f"*.{host}"
    return _host("host", text)


def _host(key: str, text: str) -> str:
    if "*" in text or "/" in text or "@" in text:
        raise _wrong(key, "not a host", "a name or an address, without scheme, path or wildcard")
    try:
        return normal_host(text)
    except AmbiguousError as error:
        raise _wrong(key, f"not a host: {error}", "such as api.example.com; the port has its own field") from None


def _tool(order: EgressOrder) -> EgressOrder:
    host = _host("host", order.host) if order.host else ""
    if order.tool:
        if order.method or order.path:
            raise _wrong("tool", "an MCP tool, and a method or path", "one or the other")
        if order.tool.count("*") > _MOST_WILD:
            raise _wrong("tool", f"more than {_MOST_WILD} wildcards", "write it with fewer")
        if order.port and not host:
            raise _wrong("port", "a port without a host", "name the host too")
        return replace(order, host=host)
    if not (order.method and order.path and host):
        raise _wrong("tool", "no tool", "an MCP tool's name, or method, path and host of an HTTP API")
    if not _METHOD.fullmatch(order.method) or order.method == "CONNECT":
        raise _wrong("method", "not a method", "upper case, such as DELETE, or *")
    path = _decoded("path", order.path)
    if path.count("*") > 2 * _MOST_WILD or "***" in path:
        raise _wrong("path", "too many wildcards", "write it with fewer")
    return replace(order, host=host, path=path)


def _prefix(key: str, text: str) -> str:
    """Whole segments, without a slash at the end; every path is none."""
    path = _decoded(key, text).rstrip("/") if text else ""
    if "*" in path:
        raise _wrong(key, "a pattern", "the beginning of the paths that are meant, such as /mcp")
    return path


def _decoded(key: str, text: str) -> str:
    try:
        same = "?" not in text and normal_path(text) == text
    except AmbiguousError as error:
        raise _wrong(key, str(error), "write it decoded, such as /v1/users/*") from None
    if not same:
        raise _wrong(key, "not a path", "decoded and without a query, such as /v1/users/*")
    return text


def _wrong(key: str, problem: str, hint: str) -> InvalidInput:
    return InvalidInput(f"order: {key}: {problem}", hint=hint)
