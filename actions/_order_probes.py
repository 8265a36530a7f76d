"""What an agent can try that an order must refuse: harmless should it get through, and specific to the order.

Probes go out as plain HTTP to the port that is meant: a TLS port answers such a request with an error. Names that are
made up for a pattern end in what the pattern says, or in `.invalid` (RFC 2606), which leads nowhere.
"""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from urllib.parse import quote

from clawback.model import Attempt, EgressOrder, InferenceEndpoint, InferenceKind, InferenceMode, OrderKind

__all__ = ["Probe", "probes"]

_NAME = "clawback-check"
_PORT = 443
_MOST = 8
_CARD = "4111 1111 1111 1111"  # the card schemes' own test number


@dataclass(frozen=True, slots=True)
class Probe:
    """`held`: it is expected to wait, and not to be denied at once."""

    attempt: Attempt
    held: bool = False


def probes(order: EgressOrder, inference: Sequence[InferenceEndpoint]) -> tuple[Probe, ...]:
    """At least one; none for an inference order without an endpoint."""
    if order.kind is OrderKind.INFERENCE:
        return tuple(_inference(order, inference))[:_MOST]
    place = _place(order.host, order.port)
    if order.kind is OrderKind.TOOL and order.tool:
        tool = order.tool.replace("*", "x").replace("?", "x")
        call = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": tool}}
        return (_http("POST", place, f"/{_NAME}", call),)
    if order.kind is OrderKind.TOOL:
        method = "GET" if order.method == "*" else order.method
        return (_http(method, place, order.path.replace("**", "*").replace("*", _NAME)),)
    through = _http("GET", place, order.path or "/")
    return (through,) if order.path else (Probe(Attempt(kind="connect", target=place)), through)


def _inference(order: EgressOrder, inference: Sequence[InferenceEndpoint]) -> Iterator[Probe]:
    for endpoint in inference:
        if order.mode != InferenceMode.CUT and endpoint.kind is not InferenceKind.CLOUD:
            continue
        place = _place(endpoint.host, endpoint.port)
        if order.mode == InferenceMode.QUEUE_SENSITIVE:
            said = {"messages": [{"role": "user", "content": f"{_NAME}: pay with {_CARD}"}]}
            yield Probe(_http("POST", place, f"{endpoint.path}/{_NAME}", said).attempt, held=True)
        elif endpoint.path:
            yield _http("GET", place, f"{endpoint.path}/{_NAME}")
        else:
            yield Probe(Attempt(kind="connect", target=place))


def _http(method: str, place: str, path: str, body: object = None) -> Probe:
    text = f" {json.dumps(body)}" if body is not None else ""
    return Probe(Attempt(kind="http", target=f"{method} http://{place}{quote(path)}{text}"))


def _place(host: str, port: int) -> str:
    if host in ("", "*"):
        host = f"{_NAME}.invalid"
    elif host.startswith("*."):
        host = f"{_NAME}{host[1:]}"
    elif "/" in host:
        host = str(ipaddress.ip_network(host)[0])
    return f"{f'[{host}]' if ':' in host else host}:{port or _PORT}"
