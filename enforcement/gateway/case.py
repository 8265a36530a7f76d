"""What must be known before a request is decided: who calls, what its body says, what its placeholders stand for."""

from __future__ import annotations

import asyncio
import socket
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import h11

from clawback.enforcement.gateway.asking import Caller, NoAnswerError
from clawback.enforcement.gateway.placeholders import Filled, MisusedError, fill, may_go
from clawback.enforcement.gateway.policies import Judged
from clawback.enforcement.gateway.target import Target, forwarded_headers
from clawback.enforcement.gateway.wire import Wire
from clawback.model import Decision, Severity

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
    """`body` where a rule looked at it, `filled` where credentials go out; `severity` is that of a denial."""

    judged: Judged
    body: bytes | None = None
    filled: Filled | None = None
    severity: Severity = Severity.MEDIUM


class DeniedError(Exception):
    """What was found out decides: not by the policy's rules, or not by them alone."""

    def __init__(self, judged: Judged, reason: str, level: str, severity: Severity = Severity.MEDIUM) -> None:
        super().__init__(reason)
        self.case = Case(judged=judged, severity=severity)
        self.decision: Decision = replace(
            judged.decision, allowed=False, reason=reason[:_MAX_REASON], level=level, inspect=False, audit=False
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
    body: bytes | None = None
    if judged.wants_body:
        body = await _read(agent, wire, request, judged)
        judged = gateway.judge(agent, target, caller.programs, body)
    if not judged.decision.allowed:
        return Case(judged=judged, body=body)
    if target.method == "CONNECT":
        if not (judged.decision.inspect or judged.sealed) and may_go(await agent.bound(), replace(target, secure=True)):
            decision = replace(
                judged.decision, inspect=True, reason="allowed by rule, to put a credential in its place"
            )
            judged = replace(judged, decision=decision)
        return Case(judged=judged, body=body)
    try:
        filled = await fill(
            forwarded_headers(request.headers),
            target,
            lambda name: gateway.asking.credential(agent.instance, name),
        )
    except MisusedError as error:
        raise DeniedError(judged, str(error), "content", Severity.HIGH) from None
    except NoAnswerError as error:
        raise DeniedError(judged, f"a credential's placeholder stands for nothing: {error}", "content") from None
    return Case(judged=judged, body=body, filled=filled)


async def _read(agent: Agent, wire: Wire, request: h11.Request, judged: Judged) -> bytes:
    """The whole body, as long as a rule may look at it; whoever is done with it takes it off `agent.buffered`."""
    kinds = [value.partition(b";")[0].strip().lower() for name, value in request.headers if name == b"content-type"]
    if any(name == b"content-encoding" for name, _ in request.headers):
        raise DeniedError(judged, "an encoded body cannot be looked at", "content")
    if request.method == b"POST" and (len(kinds) != 1 or kinds[0] not in _JSON):
        raise DeniedError(judged, "a body that is not said to be JSON", "content")
    if wire.http.they_are_waiting_for_100_continue:
        await wire.send(h11.InformationalResponse(status_code=100, headers=[]))
    body = bytearray()
    try:
        async with asyncio.timeout(_BODY_SECONDS):
            while isinstance(event := await wire.event(), h11.Data):
                body += event.data
                agent.buffered += len(event.data)
                if len(body) > judged.wants_body or agent.buffered > _MOST_BUFFERED:
                    raise DeniedError(judged, f"a body above {judged.wants_body} bytes, or too many at once", "content")
        if not isinstance(event, h11.EndOfMessage):
            raise DeniedError(judged, "the body ended too early", "content")
    except BaseException as error:
        agent.buffered -= len(body)
        if isinstance(error, TimeoutError):
            raise DeniedError(judged, "the body took too long", "content") from None
        raise
    return bytes(body)
