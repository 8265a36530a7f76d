"""One connection of one agent: requests one after the other, each decided anew, until an end or a tunnel."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import h11

from clawback.enforcement.gateway.case import CallerOf, Case, DeniedError, gather
from clawback.enforcement.gateway.channel import Plain
from clawback.enforcement.gateway.destinations import ForbiddenAddressError, UnreachableHostError
from clawback.enforcement.gateway.exchange import AgentGoneError, Exchange, UpstreamError, reach
from clawback.enforcement.gateway.intercept import TlsRefusedError, terminate
from clawback.enforcement.gateway.policies import Judged
from clawback.enforcement.gateway.records import Flow
from clawback.enforcement.gateway.replies import drain, refuse, reusable, skip_empty_body
from clawback.enforcement.gateway.sockets import close, reset, sever, tune_agent
from clawback.enforcement.gateway.target import BadRequestError, Target, target_of
from clawback.enforcement.gateway.tunnel import tunnel
from clawback.enforcement.gateway.websocket import FrameError
from clawback.enforcement.gateway.wire import Wire
from clawback.enforcement.policy.names import Address
from clawback.model import Decision, Severity

if TYPE_CHECKING:
    from clawback.enforcement.gateway.agents import Agent
    from clawback.enforcement.gateway.server import Gateway

__all__ = ["Connection", "Limits"]

_MAX_REASON = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Times in seconds. `head` bounds how slowly a request's head may come, `idle` silence in a body or tunnel."""

    connections: int = 256  # of one agent
    head: float = 15.0
    keep_alive: float = 75.0
    idle: float = 300.0
    linger: float = 2.0  # after an answer that ends the connection, for what the agent is still sending
    handshake: float = 10.0  # of TLS, either side


class Connection:
    """Runs as one task; `abort` ends it, resetting both sides."""

    def __init__(self, gateway: Gateway, agent: Agent, sock: socket.socket, number: str) -> None:
        tune_agent(sock)
        self._gateway = gateway
        self._agent = agent
        self._sock = sock
        self._wire = Wire(Plain(sock), h11.SERVER)
        self._caller = CallerOf(sock)
        self._inside: Target | None = None  # the CONNECT whose TLS ended here
        self._number = number
        self._requests = 0
        self._opening: Target | None = None  # the same, until there was a request inside
        self._broken_off = False  # by the agent
        self._why = ""
        self._task: asyncio.Task[None] | None = None
        self.flow: Flow | None = None  # what is being carried now
        self._upstream: socket.socket | None = None

    def start(self, ended: Callable[[Connection, asyncio.Task[None]], None]) -> None:
        """Begin; `ended` is called when it is over."""
        self._task = asyncio.ensure_future(self._run())
        self._task.add_done_callback(lambda task: ended(self, task))
        self._gateway.aborts.add(self._sock, lambda: self.abort("agent's connection was reset", broken_off=True))

    async def over(self) -> None:
        """Wait for the end."""
        if self._task is not None:
            await asyncio.wait((self._task,))

    def abort(self, why: str, *, broken_off: bool = False) -> None:
        """Reset the agent's side and the destination's; `why` goes into the telemetry."""
        if self._task is not None and not self._why:
            self._why, self._broken_off = why, broken_off
            if self._upstream is not None:
                sever(self._upstream)  # cancelling takes turns of the loop; not another byte may leave in them
            self._task.cancel()

    async def _run(self) -> None:
        clean = False
        try:
            while await self._serve_one():
                if self._wire.http.our_state is h11.DONE:  # not where TLS has only just been taken off
                    self._wire.http.start_next_cycle()
            clean = True
        except (OSError, AgentGoneError, UpstreamError, TimeoutError, h11.ProtocolError) as error:
            self._why = self._why or (str(error) or type(error).__name__)[:200]
            self._broken_off = isinstance(error, OSError)
        finally:
            self._gateway.aborts.remove(self._sock)
            if self._opening is not None and self._broken_off:
                # A client that does not take our certificate says so, or just goes; by TLS 1.3 when we are done.
                self._note(self._opening, f"the agent does not take the gateway's TLS: {self._why}", Severity.MEDIUM)
            (close if clean else reset)(self._sock)

    async def _serve_one(self) -> bool:
        """One request. True where another may follow."""
        limits = self._gateway.limits
        try:
            async with asyncio.timeout(limits.keep_alive):
                if not await self._wire.first_byte():
                    return False
        except TimeoutError:
            return False
        try:
            async with asyncio.timeout(limits.head):
                event = await self._wire.event()
        except TimeoutError:
            return await self._bad(408, "the request's head took too long")
        except h11.RemoteProtocolError as error:
            return await self._bad(error.error_status_hint, str(error))
        if not isinstance(event, h11.Request):
            return False
        self._requests += 1
        self._opening = None
        try:
            target = target_of(event, self._inside)
        except BadRequestError as error:
            return await self._bad(error.status, error.reason, event)
        return await self._answer(event, target)

    async def _answer(self, request: h11.Request, target: Target) -> bool:
        case: Case | None = None
        try:
            case = await self._case(request, target)
            return await self._act(request, target, case)
        except DeniedError as error:
            return await self._denied(target, error.decision, error.case.severity)
        finally:
            if case is not None and case.body is not None:
                self._agent.buffered -= len(case.body)

    async def _act(self, request: h11.Request, target: Target, case: Case) -> bool:
        gateway, agent = self._gateway, self._agent
        try:
            decision = case.judged.decision
            addresses: tuple[Address, ...] = ()
            if decision.allowed and not decision.inspect:  # inspected, each request inside finds its own way
                async with agent.lookups:
                    addresses = await gateway.destinations.addresses(target.host, target.port, case.judged.networks)
                # The agent may have been cut, or the policy changed, while all this was found out.
                again = self.judge(target, case.body).decision
                decision = again if not again.allowed or again.inspect else decision
        except ForbiddenAddressError as error:
            decision = replace(decision, allowed=False, reason=str(error), level="destination")
        except UnreachableHostError as error:
            if not await self._record(target, decision):
                return await self._refuse(503, "unavailable", "the decision could not be recorded")
            return await self._refuse(502, "upstream", str(error))
        if not decision.allowed:
            return await self._denied(target, decision, case.severity)
        if not await self._record(target, decision):
            return await self._refuse(503, "unavailable", "the decision could not be recorded")
        if decision.inspect:
            return await self._look_inside(target)
        try:
            self._upstream = await gateway.destinations.connect(addresses, target.port)
        except UnreachableHostError as error:
            return await self._refuse(502, "upstream", str(error))
        return await self._carry(request, target, decision, self._upstream, case)

    async def _denied(self, target: Target, decision: Decision, severity: Severity) -> bool:
        if not await self._record(target, decision, severity=severity):
            return await self._refuse(503, "unavailable", "the decision could not be recorded")
        return await self._refuse(403, "denied", decision.reason, decision)

    def judge(self, target: Target, body: bytes | None = None) -> Judged:
        """By what is known of the caller by now."""
        return self._gateway.judge(self._agent, target, self._caller.programs, body)

    async def _case(self, request: h11.Request, target: Target) -> Case:
        """Find out what the policy asks to know; `DeniedError` where that alone decides."""
        return await gather(self._gateway, self._agent, self._caller, self._wire, request, target)

    async def _look_inside(self, target: Target) -> bool:
        """Take the agent's TLS off; what is inside is served as requests from here on."""
        early = await self._established()
        self._opening = target
        limits, authority = self._gateway.limits, self._gateway.authority
        try:
            channel = await terminate(self._sock, early, target.host, authority, limits.handshake)
        except TlsRefusedError as error:
            self._opening = None
            self._note(target, str(error), Severity.HIGH)
            raise AgentGoneError(str(error)) from None
        self._wire = Wire(channel, h11.SERVER)
        self._inside = target
        return True

    async def _established(self) -> bytes:
        """Open the tunnel towards the agent; what it has sent into it already."""
        skip_empty_body(self._wire)
        await self._wire.send(h11.Response(status_code=200, headers=[], reason=b"Connection established"))
        return self._wire.http.trailing_data[0]

    async def _carry(
        self, request: h11.Request, target: Target, decision: Decision, upstream: socket.socket, case: Case
    ) -> bool:
        self.flow = Flow(
            records=self._gateway.records,
            agent=self._agent.agent,
            instance=self._agent.instance,
            target=target,
            decision=decision,
            connection=self._id,
        )
        idle = self._gateway.limits.idle
        failed: UpstreamError | None = None
        exchange: Exchange | None = None
        clean = False
        try:
            if target.method == "CONNECT":
                await tunnel(self._sock, upstream, await self._established(), self.flow, idle)
            else:
                channel = await reach(target, upstream, self._gateway.destinations.tls, self._gateway.limits.handshake)
                upgrade = case.judged.upgrade
                exchange = Exchange(self._wire, channel, self.flow, body=case.body, filled=case.filled, upgrade=upgrade)
                await exchange.run(request, idle)
            clean = target.method == "CONNECT" or self._wire.http.their_state is not h11.SEND_BODY
        except UpstreamError as error:
            if error.answered:
                raise
            failed = error
            self._why = self._why or str(error)
        except (TlsRefusedError, FrameError) as error:
            self._why = self._why or str(error)
            self._note(target, str(error), Severity.HIGH)
            raise AgentGoneError(str(error)) from None
        except (OSError, AgentGoneError, TimeoutError) as error:
            self._why = self._why or (str(error) or type(error).__name__)[:200]
            raise
        finally:
            (close if clean else reset)(upstream)
            self._upstream = None
            if exchange is not None and exchange.blotted:
                self._gateway.records.echoed(self.flow, exchange.blotted)
            self.flow.close("" if clean else self._why or "ended early")
            self.flow = None
        if failed is not None:
            self._why = ""
            return await self._refuse(502, "upstream", str(failed))
        if reusable(self._wire):
            return True
        if target.method != "CONNECT":
            await drain(self._wire, self._gateway.limits.linger)
        return False

    @property
    def _id(self) -> str:
        return f"{self._number}.{self._requests}"

    async def _record(self, target: Target, decision: Decision, *, severity: Severity = Severity.MEDIUM) -> bool:
        """Nothing leaves, and nothing is answered at full speed, without a record: an agent that floods is slowed."""
        self._gateway.count(decision)
        records, agent = self._gateway.records, self._agent
        for _ in range(20):
            if records.decision(
                agent.agent, agent.instance, target, decision, self._id, severity=severity, caller=self._caller.said
            ):
                return True
            await asyncio.sleep(0.1)
        return False

    def _note(self, target: Target, reason: str, severity: Severity) -> None:
        """An allowed tunnel came to nothing: to whoever watches, a denial. At once: the task may be ending."""
        denied = replace(
            self.judge(target).decision, allowed=False, reason=reason[:_MAX_REASON], level="content", inspect=False
        )
        self._gateway.count(denied)
        records, agent = self._gateway.records, self._agent
        caller = self._caller.said
        records.decision(agent.agent, agent.instance, target, denied, self._id, severity=severity, caller=caller)

    async def _bad(self, status: int, reason: str, request: h11.Request | None = None) -> bool:
        """Refuse what is no proper request, and record that somebody tried."""
        reason = reason[:_MAX_REASON]  # h11 quotes what it could not parse
        method = request.method.decode("ascii")[:32] if request else ""
        line = request.target.decode("latin-1")[:1024] if request else ""
        policy = self._agent.policy
        version = self._gateway.policies.versions().get(policy, 0)
        decision = Decision(allowed=False, rule="", reason=reason, policy=policy, policy_version=version)
        host, port = (self._inside.host, self._inside.port) if self._inside else ("", 0)
        await self._record(Target(method=method, host=host, port=port, path=line), decision)
        return await self._refuse(status, "bad_request", reason)

    async def _refuse(self, status: int, kind: str, reason: str, decision: Decision | None = None) -> bool:
        linger = self._gateway.limits.linger
        return await refuse(self._wire, status, kind, reason, decision=decision, linger=linger)
