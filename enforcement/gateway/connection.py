"""One connection of one agent: requests one after the other, each decided anew, until an end or a tunnel."""

from __future__ import annotations

import asyncio
import contextlib
import http
import json
import socket
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import h11

from clawback.enforcement.gateway.destinations import ForbiddenAddressError, UnreachableHostError
from clawback.enforcement.gateway.exchange import AgentGoneError, Exchange, UpstreamError
from clawback.enforcement.gateway.records import Flow
from clawback.enforcement.gateway.sockets import CHUNK, close, reset, sever, tune_agent
from clawback.enforcement.gateway.target import BadRequestError, Target, target_of
from clawback.enforcement.gateway.tunnel import tunnel
from clawback.enforcement.gateway.wire import Wire
from clawback.enforcement.policy.names import Address
from clawback.model import Decision

if TYPE_CHECKING:
    from clawback.enforcement.gateway.agents import Agent
    from clawback.enforcement.gateway.server import Gateway

__all__ = ["Connection", "Limits"]

_MAX_REASON = 200
_MAX_DRAIN = 4 * 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Times in seconds. `head` bounds how slowly a request's head may come, `idle` silence in a body or tunnel."""

    connections: int = 256  # of one agent
    head: float = 15.0
    keep_alive: float = 75.0
    idle: float = 300.0
    linger: float = 2.0  # after an answer that ends the connection, for what the agent is still sending


class Connection:
    """Runs as one task; `abort` ends it, resetting both sides."""

    def __init__(self, gateway: Gateway, agent: Agent, sock: socket.socket, number: str) -> None:
        tune_agent(sock)
        self._gateway = gateway
        self._agent = agent
        self._sock = sock
        self._wire = Wire(sock, h11.SERVER)
        self._number = number
        self._requests = 0
        self._why = ""
        self._task: asyncio.Task[None] | None = None
        self.flow: Flow | None = None  # what is being carried now
        self._upstream: socket.socket | None = None

    def start(self, ended: Callable[[Connection, asyncio.Task[None]], None]) -> None:
        """Begin; `ended` is called when it is over."""
        self._task = asyncio.ensure_future(self._run())
        self._task.add_done_callback(lambda task: ended(self, task))
        self._gateway.aborts.add(self._sock, lambda: self.abort("agent's connection was reset"))

    async def over(self) -> None:
        """Wait for the end."""
        if self._task is not None:
            await asyncio.wait((self._task,))

    def abort(self, why: str) -> None:
        """Reset the agent's side and the destination's; `why` goes into the telemetry."""
        if self._task is not None and not self._why:
            self._why = why
            if self._upstream is not None:
                sever(self._upstream)  # cancelling takes turns of the loop; not another byte may leave in them
            self._task.cancel()

    async def _run(self) -> None:
        clean = False
        try:
            while await self._serve_one():
                self._wire.http.start_next_cycle()
            clean = True
        except (OSError, AgentGoneError, UpstreamError, TimeoutError, h11.ProtocolError) as error:
            self._why = self._why or (str(error) or type(error).__name__)[:200]
        finally:
            self._gateway.aborts.remove(self._sock)
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
        try:
            target = target_of(event)
        except BadRequestError as error:
            return await self._bad(error.status, error.reason, event)
        return await self._answer(event, target)

    async def _answer(self, request: h11.Request, target: Target) -> bool:
        gateway, agent = self._gateway, self._agent
        decision = gateway.decide(agent, target)
        addresses: tuple[Address, ...] = ()
        if decision.allowed:
            try:
                async with agent.lookups:
                    addresses = await gateway.destinations.addresses(target.host, target.port)
            except ForbiddenAddressError as error:
                decision = _denied(decision, str(error))
            except UnreachableHostError as error:
                if not await self._record(target, decision):
                    return await self._refuse(503, "unavailable", "the decision could not be recorded")
                return await self._refuse(502, "upstream", str(error))
            # The agent may have been cut, or the policy changed, while the name was looked up.
            if decision.allowed and not (again := gateway.decide(agent, target)).allowed:
                decision = again
        if not await self._record(target, decision):
            return await self._refuse(503, "unavailable", "the decision could not be recorded")
        if not decision.allowed:
            return await self._refuse(403, "denied", decision.reason, decision)
        try:
            self._upstream = await gateway.destinations.connect(addresses, target.port)
        except UnreachableHostError as error:
            return await self._refuse(502, "upstream", str(error))
        return await self._carry(request, target, decision, self._upstream)

    async def _carry(self, request: h11.Request, target: Target, decision: Decision, upstream: socket.socket) -> bool:
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
        clean = False
        try:
            if target.method == "CONNECT":
                self._skip_empty_body()
                await self._wire.send(h11.Response(status_code=200, headers=[], reason=b"Connection established"))
                await tunnel(self._sock, upstream, self._wire.http.trailing_data[0], self.flow, idle)
            else:
                await Exchange(self._wire, upstream, self.flow).run(request, idle)
            clean = target.method == "CONNECT" or self._wire.http.their_state is not h11.SEND_BODY
        except UpstreamError as error:
            if error.answered:
                raise
            failed = error
            self._why = self._why or str(error)
        except (OSError, AgentGoneError, TimeoutError) as error:
            self._why = self._why or (str(error) or type(error).__name__)[:200]
            raise
        finally:
            (close if clean else reset)(upstream)
            self._upstream = None
            self.flow.close("" if clean else self._why or "ended early")
            self.flow = None
        if failed is not None:
            self._why = ""
            return await self._refuse(502, "upstream", str(failed))
        if self._reusable():
            return True
        if target.method != "CONNECT":
            await self._drain()
        return False

    @property
    def _id(self) -> str:
        return f"{self._number}.{self._requests}"

    def _reusable(self) -> bool:
        return self._wire.http.our_state is h11.DONE and self._wire.http.their_state is h11.DONE

    async def _record(self, target: Target, decision: Decision) -> bool:
        """Nothing leaves, and nothing is answered at full speed, without a record: an agent that floods is slowed."""
        self._gateway.count(decision)
        for _ in range(20):
            if self._gateway.records.decision(self._agent.agent, self._agent.instance, target, decision, self._id):
                return True
            await asyncio.sleep(0.1)
        return False

    async def _bad(self, status: int, reason: str, request: h11.Request | None = None) -> bool:
        """Refuse what is no proper request, and record that somebody tried."""
        reason = reason[:_MAX_REASON]  # h11 quotes what it could not parse
        method = request.method.decode("ascii")[:32] if request else ""
        line = request.target.decode("latin-1")[:1024] if request else ""
        policy = self._agent.policy
        version = self._gateway.policies.versions().get(policy, 0)
        decision = Decision(allowed=False, rule="", reason=reason, policy=policy, policy_version=version)
        await self._record(Target(method=method, host="", port=0, path=line), decision)
        return await self._refuse(status, "bad_request", reason)

    async def _refuse(self, status: int, kind: str, reason: str, decision: Decision | None = None) -> bool:
        body: dict[str, str | int] = {"error": kind, "reason": reason}
        if decision is not None:
            body |= {"rule": decision.rule, "policy_version": decision.policy_version}
        data = json.dumps(body).encode()
        headers = [("content-type", "application/json"), ("content-length", str(len(data)))]
        if self._wire.http.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
            return False
        self._skip_empty_body()
        if self._wire.http.their_state in (h11.IDLE, h11.SEND_BODY, h11.ERROR):
            headers.append(("connection", "close"))
        await self._wire.send(
            h11.Response(status_code=status, headers=headers, reason=http.HTTPStatus(status).phrase.encode())
        )
        await self._wire.send(h11.Data(data=data))
        await self._wire.send(h11.EndOfMessage())
        if not self._reusable():
            await self._drain()
            return False
        return True

    def _skip_empty_body(self) -> None:
        """A request without a body still has its end to be read, before the next one can be."""
        state = self._wire.http
        if state.their_state is h11.SEND_BODY and not state.they_are_waiting_for_100_continue:
            with contextlib.suppress(h11.RemoteProtocolError):
                state.next_event()

    async def _drain(self) -> None:
        """Read on for a moment: closing on unread data would reset the connection before the answer is read."""
        loop = asyncio.get_running_loop()
        with contextlib.suppress(OSError, TimeoutError):
            self._sock.shutdown(socket.SHUT_WR)
            async with asyncio.timeout(self._gateway.limits.linger):
                left = _MAX_DRAIN
                while left > 0 and (data := await loop.sock_recv(self._sock, CHUNK)):
                    left -= len(data)
                    await asyncio.sleep(0)


def _denied(decision: Decision, reason: str) -> Decision:
    return Decision(
        allowed=False,
        rule=decision.rule,
        reason=reason,
        policy=decision.policy,
        policy_version=decision.policy_version,
    )
