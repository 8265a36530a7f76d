"""Block a destination for one agent, a tenant, a team, a tag or all: what is open to it is reset, nothing new starts.

By name, an order says nothing about the address that another name, or none, leads to: block the address as well, or the
network. By address it refuses every name that leads there.
"""

from __future__ import annotations

from typing import Any

from pydantic import Field

from clawback.actions._orders import ScopedParams, order_action
from clawback.model import OrderKind

__all__ = ["ACTION", "BlockParams"]


class BlockParams(ScopedParams):
    """`host` is a name, `*.NAME`, an address, a network (CIDR) or `*`; port 0 is every port."""

    host: str = Field(min_length=1, max_length=253)
    port: int = Field(0, ge=0, le=65_535)


def _denies(params: BlockParams) -> dict[str, Any]:
    return {"host": params.host, "port": params.port}


ACTION = order_action(
    id="network.block-destination",
    kind=OrderKind.DESTINATION,
    summary="Block a destination at the gateway, whatever the policy allows, and reset what is open to it.",
    scope="requests and connections of the agents in scope to one destination",
    d3fend="D3-OTF",
    params=BlockParams,
    denies=_denies,
)
