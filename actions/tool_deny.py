"""Deny a tool: an MCP tool or JSON-RPC method by its name, or an HTTP API by method and path on a host.

The gateway looks into every request that may call it, so TLS ends there; what it cannot look at (another protocol, an
encoded or long body, a WebSocket, a tunnel that the policy says never to open) is refused while the order stands. Name
the host where it is known: without one, all that the agents in scope send is looked at.
"""

from __future__ import annotations

from typing import Any

from pydantic import Field, model_validator

from clawback.actions._orders import ScopedParams, order_action
from clawback.model import OrderKind

__all__ = ["ACTION", "ToolParams"]


class ToolParams(ScopedParams):
    """Either `tool` (`*` and `?` match; on `host`, or wherever it is called) or `method`, `path` and `host`."""

    tool: str = Field("", max_length=256)
    host: str = Field("", max_length=253)
    port: int = Field(0, ge=0, le=65_535)
    method: str = Field("", max_length=20)
    path: str = Field("", max_length=1024)

    @model_validator(mode="after")
    def _one(self) -> ToolParams:
        api = (self.method, self.path, self.host)
        if bool(self.tool) == bool(self.method or self.path) or not (self.tool or all(api)):
            raise ValueError("tool: an MCP tool's name, or else method, path and host of an HTTP API")
        return self


def _denies(params: ToolParams) -> dict[str, Any]:
    return {
        "tool": params.tool,
        "host": params.host,
        "port": params.port,
        "method": params.method,
        "path": params.path,
    }


ACTION = order_action(
    id="tool.deny",
    kind=OrderKind.TOOL,
    summary="Deny calls of one tool at the gateway, whatever the policy allows.",
    scope="calls of one tool by the agents in scope, and what of theirs cannot be looked into",
    d3fend="D3-NTF",
    params=ToolParams,
    denies=_denies,
)
