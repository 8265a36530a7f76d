"""Deny a connector: a whole MCP, JSON-RPC or API server, or what lies below a path of it."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from clawback.actions._orders import ScopedParams, order_action
from clawback.model import OrderKind

__all__ = ["ACTION", "ConnectorParams"]


class ConnectorParams(ScopedParams):
    """`host` is a name or an address; port 0 is every port; `path` a prefix of whole segments, empty for all."""

    host: str = Field(min_length=1, max_length=253)
    port: int = Field(0, ge=0, le=65_535)
    path: str = Field("", max_length=1024)


def _denies(params: ConnectorParams) -> dict[str, Any]:
    return {"host": params.host, "port": params.port, "path": params.path}


ACTION = order_action(
    id="connector.deny",
    kind=OrderKind.CONNECTOR,
    summary="Deny a connector at the gateway, whatever the policy allows, and reset what is open to it.",
    scope="one server, or a part of it, for the agents in scope",
    d3fend="D3-OTF",
    params=ConnectorParams,
    denies=_denies,
)
