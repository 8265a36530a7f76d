"""The gateway's own HTTP API on `STATE/run/gateway.sock`: health, metrics, policies, orders, cutting an agent off.

Errors are `{"error": {"type", "message", "hint"}}` with the names of `clawback.errors`.
"""

from __future__ import annotations

import asyncio
import dataclasses
import os
from collections.abc import Awaitable, Callable

import structlog
from pydantic import Field
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from clawback.enforcement.gateway import order_api
from clawback.enforcement.gateway.bodies import Body, read
from clawback.enforcement.gateway.server import Gateway
from clawback.enforcement.gateway.standing import refused
from clawback.enforcement.gateway.target import BadRequestError, Target, authority_of, split_url
from clawback.enforcement.policy.narrowing import draft
from clawback.enforcement.policy.order_calls import Content
from clawback.errors import ClawbackError, InvalidInput, NotFound, Refused, Unreachable
from clawback.model import Attempt, Decision, Narrowing, OrderKind, Subject

__all__ = ["STATUS", "application"]

STATUS: dict[type[ClawbackError], int] = {InvalidInput: 400, NotFound: 404, Refused: 403, Unreachable: 503}
_log = structlog.get_logger()

Handler = Callable[[Request], Awaitable[Response]]


class _Put(Body):
    text: str
    author: str = Field(min_length=1, max_length=200)
    reason: str = Field(max_length=2000)
    known_good: bool = False
    incident: str = Field("", max_length=200)


class _Mark(Body):
    author: str = Field(min_length=1, max_length=200)


class _Restore(Body):
    author: str = Field(min_length=1, max_length=200)
    reason: str = Field(max_length=2000)
    incident: str = Field("", max_length=200)


class _Subject(Body):
    agent: str = Field(max_length=200)
    tenant: str | None = Field(None, max_length=200)
    team: str | None = Field(None, max_length=200)
    tags: tuple[str, ...] | None = Field(None, max_length=1000)


class _Attempt(Body):
    kind: str
    target: str = Field(max_length=16_384)
    subject: _Subject | None = None


class _Draft(Body):
    deny: tuple[_Attempt, ...] = Field((), max_length=1024)
    keep: tuple[_Attempt, ...] | None = Field(None, max_length=10_000)
    drop: bool = False
    share: float = 1.0
    attempts: tuple[_Attempt, ...] = Field((), max_length=11_024)


class _Cut(Body):
    reason: str = Field(max_length=2000)


def application(gateway: Gateway) -> Starlette:
    """The routes over one gateway."""
    policies, store = gateway.policies, gateway.policies.store

    async def health(_request: Request) -> Response:
        return JSONResponse(
            {
                "status": "ok",
                "pid": os.getpid(),
                "uid": os.getuid(),
                "agents": [
                    {"agent": one.agent, "instance": one.instance, "policy": one.policy}
                    for one in gateway.agents.values()
                ],
                "policies": policies.versions(),
                "cut": gateway.cut,
                "orders": len(standing := gateway.orders.all()),
                "orders_damaged": [one.id for one in standing if one.kind is OrderKind.DAMAGED],
                "telemetry_lost": gateway.records.writer.lost_total,
            }
        )

    async def metrics(_request: Request) -> Response:
        gateway.metrics.lost.set(gateway.records.writer.lost_total)
        gateway.metrics.orders.set(len(gateway.orders.all()))
        gateway.metrics.held.set(gateway.queue.waiting)
        return Response(gateway.metrics.render(), media_type="text/plain; version=0.0.4")

    async def versions(request: Request) -> Response:
        found = await asyncio.to_thread(store.versions, _policy(request))
        return JSONResponse([dataclasses.asdict(version) for version in found])

    async def text(request: Request) -> Response:
        return JSONResponse({"text": await asyncio.to_thread(store.read, _policy(request), _number(request))})

    async def active(request: Request) -> Response:
        return JSONResponse(dataclasses.asdict(policies.active(_policy(request))))

    async def put(request: Request) -> Response:
        name, body = _policy(request), await read(request, _Put)
        put = await asyncio.to_thread(
            lambda: store.put(
                name,
                body.text,
                author=body.author,
                reason=body.reason,
                incident=body.incident,
                known_good=body.known_good,
            )
        )
        await policies.refresh(name)
        return JSONResponse(dataclasses.asdict(put))

    async def mark(request: Request) -> Response:
        name, number, body = _policy(request), _number(request), await read(request, _Mark)
        marked = await asyncio.to_thread(lambda: store.mark_known_good(name, number, author=body.author))
        await policies.refresh(name)
        return JSONResponse(dataclasses.asdict(marked))

    async def restore(request: Request) -> Response:
        name, number, body = _policy(request), _number(request), await read(request, _Restore)
        restored = await asyncio.to_thread(
            lambda: store.restore(name, number, author=body.author, reason=body.reason, incident=body.incident)
        )
        await policies.refresh(name)
        return JSONResponse(dataclasses.asdict(restored))

    async def narrowed(request: Request) -> Response:
        name, number, body = _policy(request), _number(request), await read(request, _Draft)
        narrowing = Narrowing(
            deny=_attempts(body.deny),
            keep=None if body.keep is None else _attempts(body.keep),
            drop=body.drop,
            share=body.share,
        )
        made = await asyncio.to_thread(
            lambda: draft(name, number, store.read(name, number), narrowing, _attempts(body.attempts))
        )
        return JSONResponse(dataclasses.asdict(made))

    async def decide(request: Request) -> Response:
        name, body = _policy(request), await read(request, _Attempt)
        if body.subject is None:
            policies.active(name)  # NotFound, where the decision would say "no policy in force"
        return JSONResponse(dataclasses.asdict(_decide(gateway, name, body)))

    async def cut(request: Request) -> Response:
        body = await read(request, _Cut)
        return JSONResponse({"connections_reset": gateway.cut_off(_agent(request), body.reason)})

    async def uncut(request: Request) -> Response:
        return JSONResponse({"was_cut": gateway.reconnect(_agent(request))})

    policy = "/policies/{policy}"
    version = policy + "/versions/{version}"
    return Starlette(
        routes=[
            Route("/healthz", health),
            Route("/metrics", metrics),
            Route(policy, put, methods=["PUT"]),
            Route(policy + "/versions", versions),
            Route(policy + "/active", active),
            Route(policy + "/decide", decide, methods=["POST"]),
            Route(version, text),
            Route(version + "/known-good", mark, methods=["POST"]),
            Route(version + "/draft", narrowed, methods=["POST"]),
            Route(version + "/restore", restore, methods=["POST"]),
            *order_api.routes(gateway),
            Route("/agents/{agent:path}/cut", cut, methods=["POST"]),
            Route("/agents/{agent:path}/uncut", uncut, methods=["POST"]),
        ],
        exception_handlers={ClawbackError: _error, HTTPException: _http_error, Exception: _failed},
    )


def _decide(gateway: Gateway, policy: str, attempt: _Attempt) -> Decision:
    """Without a subject: by the policy, and the orders for all agents."""
    content: Content | None = None
    try:
        if attempt.kind == "connect":
            method, path = "CONNECT", ""
            host, port = authority_of(attempt.target, default=None)
        elif attempt.kind == "http":
            method, _, rest = attempt.target.partition(" ")
            url, _, body = rest.partition(" ")
            host, port, path = split_url(url)
            content = Content(body.encode(), path)
        else:
            raise InvalidInput(f"{attempt.kind!r} is not for the gateway", hint="kind is http or connect")
    except BadRequestError as error:
        version = gateway.policies.versions().get(policy, 0)
        return Decision(allowed=False, rule="", reason=error.reason, policy=policy, policy_version=version)
    said = attempt.subject
    subject = Subject(agent="", tenant="", team="", tags=()) if said is None else Subject(**said.model_dump())
    target = Target(method=method, host=host, port=port, path=path)
    judged = gateway.judge_by(policy, subject, target)
    if judged.wants_body:
        judged = gateway.judge_by(policy, subject, target, content=content)
    if not judged.ruling.held:
        return judged.decision
    if not judged.decision.allowed:  # by the policy; and it would be held if the policy changed
        return dataclasses.replace(judged.decision, orders=tuple(order.id for order in judged.ruling.held))
    return refused(judged.decision, judged.ruling.held, f"{', '.join(judged.ruling.found)} in it: it would be held")


def _attempts(found: tuple[_Attempt, ...]) -> tuple[Attempt, ...]:
    return tuple(Attempt(kind=one.kind, target=one.target) for one in found)


def _policy(request: Request) -> str:
    return str(request.path_params["policy"])


def _agent(request: Request) -> str:
    return str(request.path_params["agent"])


def _number(request: Request) -> int:
    value = str(request.path_params["version"])
    if not value.isascii() or not value.isdigit() or len(value) > 9:
        raise InvalidInput(f"{value[:40]!r} is not a version", hint="a number from 1")
    return int(value)


def _answer(status: int, kind: str, message: str, hint: str) -> Response:
    return JSONResponse({"error": {"type": kind, "message": message, "hint": hint}}, status_code=status)


async def _error(_request: Request, error: Exception) -> Response:
    if not isinstance(error, ClawbackError):
        raise error
    return _answer(STATUS.get(type(error), 500), type(error).__name__, error.message, error.hint)


async def _http_error(_request: Request, error: Exception) -> Response:
    if not isinstance(error, HTTPException):
        raise error
    kind = "NotFound" if error.status_code == 404 else "InvalidInput"
    return _answer(error.status_code, kind, f"gateway: {error.detail}", "is the client of another version?")


async def _failed(request: Request, error: Exception) -> Response:
    _log.error("request failed", path=request.url.path, exc_info=error)
    return _answer(500, "ClawbackError", f"the gateway failed: {type(error).__name__}", "see the gateway's log")
