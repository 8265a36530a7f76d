"""The API's part for orders: list, place, lift. Whoever may use the API may; agents have no way to it."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from pydantic import Field
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from clawback.enforcement.gateway.bodies import Body, read, uid_of
from clawback.model import EgressOrder, OrderKind, Scope, ScopeKind

if TYPE_CHECKING:
    from clawback.enforcement.gateway.server import Gateway

__all__ = ["routes"]


class _Order(Body):
    kind: OrderKind
    scope_kind: ScopeKind
    scope_value: str = ""
    reason: str
    by: str
    incident: str = ""
    host: str = ""
    port: int = 0
    tool: str = ""
    method: str = ""
    path: str = ""
    mode: str = ""


class _Lift(Body):
    reason: str = Field(min_length=1, max_length=500)
    by: str = Field(min_length=1, max_length=200)


def routes(gateway: Gateway) -> list[Route]:
    """Over one gateway."""

    async def listed(_request: Request) -> Response:
        standing = [dataclasses.asdict(order) for order in gateway.orders.all()]
        endpoints = [dataclasses.asdict(endpoint) for endpoint in gateway.orders.inference]
        return JSONResponse({"orders": standing, "inference": endpoints, "held": gateway.queue.held})

    async def place(request: Request) -> Response:
        body = await read(request, _Order)
        said = body.model_dump(exclude={"scope_kind", "scope_value"})
        scope = Scope(body.scope_kind, body.scope_value)
        given = EgressOrder(id=str(request.path_params["order"]), scope=scope, uid=uid_of(request), **said)
        standing, ended = await gateway.orders.put(given)
        gateway.records.order(standing, f"stands, {ended} connections ended", by=given.by, reason=given.reason)
        return JSONResponse({"order": dataclasses.asdict(standing), "connections_reset": ended})

    async def lift(request: Request) -> Response:
        body, name = await read(request, _Lift), str(request.path_params["order"])
        lifted = await gateway.orders.lift(name, reason=body.reason, by=body.by, uid=uid_of(request))
        if lifted is not None:
            gateway.records.order(lifted, "is lifted", by=body.by, reason=body.reason)
        return JSONResponse({"lifted": dataclasses.asdict(lifted) if lifted is not None else None})

    return [
        Route("/orders", listed),
        Route("/orders/{order}", place, methods=["PUT"]),
        Route("/orders/{order}/lift", lift, methods=["POST"]),
    ]
