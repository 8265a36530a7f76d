"""What must be known before a request is decided: who calls, what its body says, what its placeholders stand for."""

from __future__ import annotations

import asyncio
import socket
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import h11

from clawback.enforcement.gateway.asking import Caller, NoAnswerError
from clawback.enforcement.gateway.holding import NotHeldError
from clawback.enforcement.gateway.placeholders import Filled, MisusedError, fill, may_go
from clawback.enforcement.gateway.policies import Judged
from clawback.enforcement.gateway.replies import proxy_status
from clawback.enforcement.gateway.standing import refused
from clawback.enforcement.gateway.target import Target, forwarded_headers
from clawback.enforcement.gateway.websocket import asks
from clawback.enforcement.gateway.wire import Wire
from clawback.enforcement.policy.order_calls import Content
from clawback.model import CREDENTIAL_MISUSED, Decision, OrderKind, Severity

if TYPE_CHECKING:
    from clawback.enforcement.gateway.agents import Agent
    from clawback.enforcement.gateway.server import Gateway

__all__ = ["CallerOf", "Case", "DeniedError", "gather"]

_BODY_SECONDS = 60.0
_MAX_REASON = 200
_MOST_BUFFERED = 32 * 1024 * 1024  # bytes, of one agent's bodies at once
_JSON = (b"application/json", b"application/graphql+json", b"application/json-rpc")


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """`content` where a rule or an order looked at it, `filled` where credentials go out; `severity` is that of a
    denial.
    """

    judged: Judged
    content: Content | None = None
    filled: Filled | None = None
    severity: Severity = Severity.MEDIUM

    @property
    def body(self) -> bytes | None:
        """What was read of it: all."""
        return self.content.data if self.content is not None else None


class DeniedError(Exception):
    """What was found out decides: not by the policy's rules, or not by them alone."""

    def __init__(self, judged: Judged, reason: str, level: str, severity: Severity = Severity.MEDIUM) -> None:
        super().__init__(reason)
        self.case = Case(judged=judged, severity=severity)
        decision = judged.decision
        if level == "order":
            self.decision: Decision = refused(decision, judged.ruling.held or judged.ruling.reads, reason)
        else:
            self.decision = replace(
                decision, allowed=False, reason=reason[:_MAX_REASON], level=level, inspect=False, audit=False
            )


class CallerOf:
    """Who has a connection open, asked once, when a rule first wants to know."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._callers: tuple[Caller, ...] | None = None

    @property
    def programs(self) -> tuple[tuple[str, ...], ...] | None:
        """Each process' program and its ancestors'; None while that is not known."""
        if self._callers is None:
            return None
        return tuple((one.path, *one.ancestors) for one in self._callers)

    @property
    def said(self) -> str:
        """For a reason."""
        return ", ".join(dict.fromkeys(one.path for one in self._callers or ()))

    async def find(self, gateway: Gateway, instance: str) -> tuple[str, ...]:
        """Ask; gives the paths whose files are others than at first. `NoAnswerError`."""
        # Both ends as the agent sees them: the gateway's socket is in the agent's own network.
        try:
            local, remote = self._sock.getpeername()[:2], self._sock.getsockname()[:2]
        except OSError:
            raise NoAnswerError("the connection is gone") from None
        self._callers = await gateway.asking.callers(instance, local, remote)
        return tuple(path for one in self._callers for path in one.changed)


async def gather(
    gateway: Gateway, agent: Agent, caller: CallerOf, wire: Wire, request: h11.Request, target: Target
) -> Case:
    """The request, judged by all that the policy wants to know of it. `DeniedError`."""
    judged = gateway.judge(agent, target, caller.programs)
    if judged.wants_caller:
        try:
            changed = await caller.find(gateway, agent.instance)
        except NoAnswerError as error:
            raise DeniedError(judged, f"which program calls cannot be told: {error}", "binary") from None
        if changed:
            why = f"{changed[0]} is another file than when it was first used"
            raise DeniedError(judged, why, "binary", Severity.HIGH)
        judged = gateway.judge(agent, target, caller.programs)
        if not judged.decision.allowed and judged.decision.level == "binary":
            raise DeniedError(judged, f"{judged.decision.reason}: {caller.said}", "binary")
    if judged.ruling.reads and asks(request.method, request.headers):
        raise DeniedError(judged, "an order looks at what is sent, and what a WebSocket carries is not seen", "order")
    content: Content | None = None
    try:
        if judged.wants_body:
            content = await _content(agent, wire, request, target, judged)
            judged = gateway.judge(agent, target, caller.programs, content)
        if content is not None and judged.ruling.held and judged.decision.allowed:
            judged = await _hold(gateway, agent, caller, wire, request, target, content, judged)
        if not judged.decision.allowed:
            return Case(judged=judged, content=content)
        if target.method == "CONNECT":
            return Case(judged=await _to_fill(agent, target, judged))
        return Case(judged=judged, content=content, filled=await _filled(gateway, agent, request, target, judged))
    except BaseException:
        if content is not None:
            agent.buffered -= len(content.data)
        raise


async def _to_fill(agent: Agent, target: Target, judged: Judged) -> Judged:
    """A tunnel to a host that a credential is for is looked into, to put it in its place."""
    if judged.decision.inspect or judged.sealed or not may_go(await agent.bound(), replace(target, secure=True)):
        return judged
    decision = replace(judged.decision, inspect=True, reason="allowed by rule, to put a credential in its place")
    return replace(judged, decision=decision)


async def _filled(
    gateway: Gateway, agent: Agent, request: h11.Request, target: Target, judged: Judged
) -> Filled | None:
    try:
        return await fill(
            forwarded_headers(request.headers),
            target,
            lambda name: gateway.asking.credential(agent.instance, name),
        )
    except MisusedError as error:
        raise DeniedError(judged, f"{CREDENTIAL_MISUSED}{error}", "content", Severity.HIGH) from None
    except NoAnswerError as error:
        raise DeniedError(judged, f"a credential's placeholder stands for nothing: {error}", "content") from None


async def _content(agent: Agent, wire: Wire, request: h11.Request, target: Target, judged: Judged) -> Content:
    """The body, in a form that whoever looks at it accepts: a rule takes JSON, an order whatever comes."""
    kinds = [value.partition(b";")[0].strip().lower() for name, value in request.headers if name == b"content-type"]
    encoded = any(name == b"content-encoding" for name, _ in request.headers)
    if not judged.any_body and encoded:
        raise DeniedError(judged, "an encoded body cannot be looked at", "content")
    if not judged.any_body and request.method == b"POST" and (len(kinds) != 1 or kinds[0] not in _JSON):
        raise DeniedError(judged, "a body that is not said to be JSON", "content")
    data = await _read(agent, wire, judged, "order" if judged.any_body else "content")
    content = Content(data, target.path, encoded=encoded)
    try:
        if any(order.kind is OrderKind.INFERENCE for order in judged.ruling.reads):
            for _ in content.examined():
                await asyncio.sleep(0)
    except BaseException:
        agent.buffered -= len(data)
        raise
    return content


async def _hold(
    gateway: Gateway,
    agent: Agent,
    caller: CallerOf,
    wire: Wire,
    request: h11.Request,
    target: Target,
    content: Content,
    judged: Judged,
) -> Judged:
    """Wait until no order has this request wait; the judgement then. `DeniedError` where that takes too long."""
    ruling = judged.ruling
    if request.http_version >= b"1.1":
        # The agent's side may see that it is held, and by what; a client that does not care reads over it.
        said = proxy_status(refused(judged.decision, ruling.held, ""), error="http_request_held")
        await wire.send(h11.InformationalResponse(status_code=100, headers=[("proxy-status", said)]))
    if ruling.endpoint is not None:
        said = f"held by {ruling.held[0].rule}"
        gateway.records.inference(agent.agent, agent.instance, target, ruling.endpoint, ruling.found, said)
    try:
        return await gateway.queue.wait(
            judged,
            len(content.data),
            wire.channel.sock,
            gateway.orders,
            lambda: gateway.judge(agent, target, caller.programs, content),
        )
    except NotHeldError as error:
        raise DeniedError(judged, f"{', '.join(ruling.found)} in it: {error}", "order") from None


async def _read(agent: Agent, wire: Wire, judged: Judged, level: str) -> bytes:
    """The whole body, as long as it may be; whoever is done with it takes it off `agent.buffered`."""
    if wire.http.they_are_waiting_for_100_continue:
        await wire.send(h11.InformationalResponse(status_code=100, headers=[]))
    body = bytearray()
    try:
        async with asyncio.timeout(_BODY_SECONDS):
            while isinstance(event := await wire.event(), h11.Data):
                body += event.data
                agent.buffered += len(event.data)
                if len(body) > judged.wants_body or agent.buffered > _MOST_BUFFERED:
                    raise DeniedError(judged, f"a body above {judged.wants_body} bytes, or too many at once", level)
        if not isinstance(event, h11.EndOfMessage):
            raise DeniedError(judged, "the body ended too early", level)
    except BaseException as error:
        agent.buffered -= len(body)
        if isinstance(error, TimeoutError):
            raise DeniedError(judged, "the body took too long", level) from None
        raise
    return bytes(body)
