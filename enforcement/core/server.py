"""The core's HTTP API on its Unix socket: checks who asks and what for, finds the call, and says what went wrong."""

from __future__ import annotations

import json

import structlog
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from clawback.enforcement.core import wire
from clawback.enforcement.core.calls import Calls
from clawback.enforcement.core.peers import Permissions
from clawback.enforcement.core.routes import Call, Routes
from clawback.errors import ClawbackError, NotFound

__all__ = ["Api"]

_log = structlog.get_logger()


class Api:
    """The ASGI application. Routing is a table: a framework's router would take as long as the freeze."""

    def __init__(self, routes: Routes, permissions: Permissions) -> None:
        self._routes = routes
        self._permissions = permissions
        self._calls = Calls()

    def close(self) -> None:
        """Let what is under way end."""
        self._routes.close()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            return
        try:
            response = await self._answer(Request(scope, receive))
        except ClawbackError as error:
            response = _failure(error)
        except ClientDisconnect:
            return
        except Exception:
            _log.exception("request failed", path=scope["path"][:200])
            response = _failure(ClawbackError("the core failed to do this", hint="its log says why"))
        await response(scope, receive, send)

    async def _answer(self, request: Request) -> Response:
        parts = [part for part in request.scope["path"].split("/") if part]
        name = parts[1] if len(parts) > 1 else ""
        shape = "/" + "/".join([*parts[:1], *(["*"] if name else []), *parts[2:]])
        found = self._routes.table.get((request.method, shape))
        if found is None:
            raise NotFound("the core has no such call", hint="the API is described in docs/core.md")
        verb, handler = found
        # Root may do everything, so a request that reached us without credentials must not look like root.
        uid = int(request.client.host) if request.client else -1
        self._permissions.check(uid, verb)
        with self._calls.one_of(uid, verb):
            return await handler(Call(request, name, uid))


def _failure(error: ClawbackError) -> Response:
    # A subclass that the wire does not know travels as the nearest one it does.
    name = next(kind.__name__ for kind in type(error).__mro__ if kind.__name__ in wire.ERRORS)
    body = {"error": error.message, "hint": error.hint, "type": name}
    return Response(json.dumps(body).encode(), status_code=wire.ERRORS[name][0], media_type="application/json")
