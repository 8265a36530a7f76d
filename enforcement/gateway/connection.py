"""One connection of one agent: requests one after the other, each decided anew, until an end or a tunnel."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from dataclasses import replace
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
from clawback.enforcement.gateway.standing import barred, refused
from clawback.enforcement.gateway.target import BadRequestError, Target, bodiless, target_of
from clawback.enforcement.gateway.telling import Telling
from clawback.enforcement.gateway.tunnel import tunnel
from clawback.enforcement.gateway.websocket import FrameError, asks
from clawback.enforcement.gateway.wire import Wire
from clawback.enforcement.policy.names import Address
from clawback.enforcement.policy.order_calls import Content
from clawback.model import Decision, Severity

if TYPE_CHECKING:
    from clawback.enforcement.gateway.agents import Agent
    from clawback.enforcement.gateway.server import Gateway

__all__ = ["Connection"]

_MAX_REASON = 200


class Connection:
    """Runs as one task; `abort` ends it, resetting both sides."""

    def __init__(self, gateway: Gateway, agent: Agent, sock: socket.socket, number: str) -> None:
        tune_agent(sock)
        self._gateway = gateway
        self._agent = agent
        self._sock = sock
        self._wire = Wire(Plain(sock), h11.SERVER)
        self._caller = CallerOf(sock)
        self._telling = Telling(gateway, agent, self._caller)
        self._inside: Target | None = None  # the CONNECT whose TLS ended here
        self._number = number
        self._requests = 0
        self._opening: Target | None = None  # the same, until there was a request inside
        self._broken_off = False  # by the agent
        self._why = ""
        self._task: asyncio.Task[None] | None = None
        self.flow: Flow | None = None  # what is being carried now
        self._content: Content | None = None  # of the request that is being carried, if it was read
        self._addresses: tuple[Address, ...] = ()
        self._upgrade = ""
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
            case = await gather(self._gateway, self._agent, self._caller, self._wire, request, target)
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
                self._addresses = addresses
                again = self._again(target, case)
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
        again = self._again(target, case)  # nothing is waited for between this and the flow that orders end
        if not again.allowed or again.inspect:
            reset(self._upstream)
            self._upstream = None
            return await (self._look_inside(target) if again.allowed else self._denied(target, again, case.severity))
        return await self._carry(request, target, decision, self._upstream, case)

    async def _denied(self, target: Target, decision: Decision, severity: Severity) -> bool:
        if not await self._record(target, decision, severity=severity):
            return await self._refuse(503, "unavailable", "the decision could not be recorded")
        return await self._refuse(403, "denied", decision.reason, decision)

    def judge(self, target: Target, content: Content | None = None, addresses: tuple[Address, ...] = ()) -> Judged:
        """By what is known of the caller by now."""
        return self._gateway.judge(self._agent, target, self._caller.programs, content, addresses)

    def _again(self, target: Target, case: Case) -> Decision:
        """The agent may have been cut, the policy or an order have come, while other things were found out."""
        return barred(self.judge(target, case.content, self._addresses))

    def enforce_orders(self) -> int:
        """End what an order denies, or can no longer look at; how many connections that were, 0 or 1."""
        flow, target = self.flow, self.flow.target if self.flow else self._inside
        if target is None or self._why:
            return 0
        known = (self._content, self._addresses) if flow else (None, ())
        ruling = self._gateway.orders.ruling(self._agent.subject, target, *known)
        stops = (ruling.stops or (ruling.reads if self._upgrade else ())) if flow else ruling.denied
        if not stops:
            return 0
        decision = flow.decision if flow else self.judge(target).decision
        ended = refused(decision, stops, f"{stops[0].what}: what was open is ended by an order")
        self._telling.at_once(target, ended, self._id, Severity.MEDIUM)
        self.abort(f"ended by {stops[0].rule}")
        return 1

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
        self._content = case.content or (Content(b"", target.path) if bodiless(request) else None)
        self._upgrade = upgrade = case.judged.upgrade if asks(request.method, request.headers) else ""
        failed: UpstreamError | None = None
        exchange: Exchange | None = None
        clean = False
        try:
            if target.method == "CONNECT":
                await tunnel(self._sock, upstream, await self._established(), self.flow, idle)
            else:
                channel = await reach(target, upstream, self._gateway.destinations.tls, self._gateway.limits.handshake)
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
            self.flow = self._content = None
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
        return await self._telling.record(target, decision, self._id, severity)

    def _note(self, target: Target, reason: str, severity: Severity) -> None:
        """An allowed tunnel came to nothing: to whoever watches, a denial."""
        judged = self.judge(target)
        denied = replace(judged.decision, allowed=False, reason=reason[:_MAX_REASON], level="content", inspect=False)
        if judged.ruling.look:
            denied = refused(denied, judged.ruling.look, reason)
        self._telling.at_once(target, denied, self._id, severity)

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
