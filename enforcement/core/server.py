"""The core's HTTP API on its Unix socket: checks who asks and what for, and calls the service.

    GET  /healthz  /metrics  /agents  /agents/AGENT  /agents/AGENT/wait?instance=  /agents/AGENT/probe?level=
    POST /agents  /agents/AGENT/contain  …/release  …/relaunch  …/attempt  …/evidence

Freezing and isolating have threads of their own, so that no launch and no evidence ever stands before a freeze, and one
agent's freeze that the kernel is slow to grant does not stand before another's.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import structlog
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from clawback.enforcement.core import wire
from clawback.enforcement.core.peers import Permissions
from clawback.enforcement.core.service import Service
from clawback.enforcement.core.stdio import StdioDesk
from clawback.errors import ClawbackError, InvalidInput, NotFound
from clawback.model import Level
from clawback.urgency import go_first

__all__ = ["Api"]

T = TypeVar("T")
Handler = Callable[[Request, str], Awaitable[Response]]

_IMMEDIATE = frozenset({Level.FREEZE, Level.ISOLATE})
_log = structlog.get_logger()


class Api:
    """The ASGI application. Routing is a table: a framework's router would take as long as the freeze."""

    def __init__(self, service: Service, permissions: Permissions, stdio: StdioDesk) -> None:
        self._service = service
        self._permissions = permissions
        self._stdio = stdio
        self._workers = ThreadPoolExecutor(max_workers=8, thread_name_prefix="core")
        self._reflex = ThreadPoolExecutor(max_workers=4, thread_name_prefix="reflex", initializer=go_first)
        self._table: dict[tuple[str, str], tuple[str, Handler]] = {
            ("GET", "/healthz"): ("health", self._health),
            ("GET", "/metrics"): ("metrics", self._metrics),
            ("GET", "/agents"): ("agents", self._agents),
            ("POST", "/agents"): ("launch", self._launch),
            ("GET", "/agents/*"): ("agents", self._agent),
            ("GET", "/agents/*/wait"): ("wait", self._wait),
            ("GET", "/agents/*/probe"): ("probe", self._probe),
            ("POST", "/agents/*/contain"): ("contain", self._contain),
            ("POST", "/agents/*/release"): ("release", self._release),
            ("POST", "/agents/*/relaunch"): ("relaunch", self._relaunch),
            ("POST", "/agents/*/attempt"): ("attempt", self._attempt),
            ("POST", "/agents/*/evidence"): ("evidence", self._evidence),
        }

    def close(self) -> None:
        """Let what runs in the worker threads end."""
        self._workers.shutdown(wait=True, cancel_futures=True)
        self._reflex.shutdown(wait=True)

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
        parts = [part for part in request.url.path.split("/") if part]
        agent = parts[1] if len(parts) > 1 else ""
        shape = "/" + "/".join([*parts[:1], *(["*"] if agent else []), *parts[2:]])
        found = self._table.get((request.method, shape))
        if found is None:
            raise NotFound("the core has no such call", hint="the API is described in docs/core.md")
        verb, handler = found
        # Root may do everything, so a request that reached us without credentials must not look like root.
        uid = int(request.client.host) if request.client else -1
        self._permissions.check(uid, verb)
        return await handler(request, agent)

    async def _work(self, call: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._workers, call)

    async def _health(self, _request: Request, _agent: str) -> Response:
        health = self._service.health()
        return _json(json.dumps(health).encode(), 200 if health["status"] == "ok" else 503)

    async def _metrics(self, _request: Request, _agent: str) -> Response:
        return Response(self._service.metrics.render(), media_type="text/plain; version=0.0.4; charset=utf-8")

    async def _agents(self, _request: Request, _agent: str) -> Response:
        return _json(wire.AGENTS.dump_json(self._service.agents()))

    async def _agent(self, _request: Request, agent: str) -> Response:
        return _json(wire.AGENT.dump_json(self._service.agent(agent)))

    async def _launch(self, request: Request, _agent: str) -> Response:
        body = wire.read(wire.LaunchBody, await _body(request))
        uid = int(request.client.host) if request.client else -1
        stdio = self._stdio.claim(body.stdio, uid) if body.stdio else None
        info = await self._work(lambda: self._service.launch(body.spec, stdio=stdio))
        return _json(wire.AGENT.dump_json(info), 201)

    async def _contain(self, request: Request, agent: str) -> Response:
        body = wire.read(wire.ContainBody, await _body(request))

        def contain() -> Any:
            return self._service.contain(
                agent, body.level, instance=body.instance, reason=body.reason, by=body.by, incident=body.incident
            )

        pool = self._reflex if body.level in _IMMEDIATE else self._workers
        result = await asyncio.get_running_loop().run_in_executor(pool, contain)
        return _json(wire.RESULT.dump_json(result))

    async def _probe(self, request: Request, agent: str) -> Response:
        try:
            level = wire.level(request.query_params.get("level", ""))
        except ValueError as error:
            raise InvalidInput(f"level: {error}") from None
        return _json(wire.RESULT.dump_json(await self._work(lambda: self._service.probe(agent, level))))

    async def _release(self, request: Request, agent: str) -> Response:
        body = wire.read(wire.ReleaseBody, await _body(request))
        results = await self._work(
            lambda: self._service.release(agent, levels=body.levels, reason=body.reason, by=body.by)
        )
        return _json(wire.RESULTS.dump_json(results))

    async def _relaunch(self, request: Request, agent: str) -> Response:
        body = wire.read(wire.RelaunchBody, await _body(request))
        info = await self._work(
            lambda: self._service.relaunch(
                agent,
                policy_version=body.policy_version,
                policy_text=body.policy_text,
                reason=body.reason,
                by=body.by,
            )
        )
        return _json(wire.AGENT.dump_json(info), 201)

    async def _attempt(self, request: Request, agent: str) -> Response:
        body = wire.read(wire.AttemptBody, await _body(request))
        results = await self._work(lambda: self._service.try_inside(agent, body.attempts))
        return _json(wire.ATTEMPTS.dump_json(results))

    async def _evidence(self, request: Request, agent: str) -> Response:
        body = wire.read(wire.EvidenceBody, await _body(request))
        bundle = await self._work(lambda: self._service.evidence(agent, incident=body.incident))
        return _json(wire.BUNDLE.dump_json(bundle), 201)

    async def _wait(self, request: Request, agent: str) -> Response:
        status = await self._service.wait(agent, request.query_params.get("instance", ""))
        return _json(json.dumps({"exit_status": status}).encode())


async def _body(request: Request) -> bytes:
    parts: list[bytes] = []
    size = 0
    async for part in request.stream():
        size += len(part)
        if size > wire.MAX_BODY:
            raise InvalidInput(f"body: more than {wire.MAX_BODY} bytes")
        parts.append(part)
    return b"".join(parts)


def _json(content: bytes, status: int = 200) -> Response:
    return Response(content, status_code=status, media_type="application/json")


def _failure(error: ClawbackError) -> Response:
    # A subclass that the wire does not know travels as the nearest one it does.
    name = next(kind.__name__ for kind in type(error).__mro__ if kind.__name__ in wire.ERRORS)
    body = {"error": error.message, "hint": error.hint, "type": name}
    return _json(json.dumps(body).encode(), wire.ERRORS[name][0])
