"""Carries one HTTP request to its destination and the response back, streaming both, re-framing both."""

from __future__ import annotations

import contextlib
import socket
import ssl

import h11

from clawback.enforcement.gateway.channel import Channel, Plain
from clawback.enforcement.gateway.intercept import outgoing
from clawback.enforcement.gateway.placeholders import Filled
from clawback.enforcement.gateway.records import Flow
from clawback.enforcement.gateway.scrub import Scrubber
from clawback.enforcement.gateway.target import Target, forwarded_headers
from clawback.enforcement.gateway.tunnel import silence
from clawback.enforcement.gateway.websocket import asks, carry, offered
from clawback.enforcement.gateway.wire import Wire, until

__all__ = ["AgentGoneError", "Exchange", "UpstreamError", "reach"]

_MOST_INFORMATIONAL = 16


class AgentGoneError(Exception):
    """The agent's side ended in the middle, or sent what is not HTTP; the text says which."""


class UpstreamError(Exception):
    """The destination failed. `answered`: the agent has got part of its response, so no error page can be sent."""

    def __init__(self, reason: str, *, answered: bool) -> None:
        super().__init__(reason)
        self.answered = answered


async def reach(target: Target, sock: socket.socket, context: ssl.SSLContext, seconds: float) -> Channel:
    """The way to the destination over a connected socket: TLS that proves who it is, where it came in TLS."""
    if not target.secure:
        return Plain(sock)
    try:
        return await outgoing(sock, context, target.host, seconds)
    except ssl.SSLCertVerificationError as error:
        raise UpstreamError(f"TLS: {error.verify_message}", answered=False) from None
    except ssl.SSLError as error:
        raise UpstreamError(f"TLS: {error.reason}", answered=False) from None
    except TimeoutError:
        raise UpstreamError("TLS took too long to begin", answered=False) from None
    except OSError as error:
        raise UpstreamError(error.strerror or "connection lost", answered=False) from None


class Exchange:
    """One request on an upstream connection of its own: nothing can be left on it for the next request.

    `body` is the request's, where it has been read already. `filled` are headers with credentials in them, which are
    blotted out of the answer. `upgrade`: see `policy.verdict`.
    """

    def __init__(
        self,
        agent: Wire,
        upstream: Channel,
        flow: Flow,
        *,
        body: bytes | None = None,
        filled: Filled | None = None,
        upgrade: str = "",
    ) -> None:
        self._agent = agent
        self._upstream = Wire(upstream, h11.CLIENT)
        self._flow = flow
        self._whole = body
        self._upgrade = upgrade
        self._switched = False
        self._filled = filled
        self._scrubber = Scrubber(filled.secrets) if filled is not None else None
        self._answered = False
        self._informed = 0

    async def run(self, request: h11.Request, idle_seconds: float) -> None:
        """To the response's end. Raises `AgentGoneError` or `UpstreamError`."""
        try:
            await self._upstream.send(self._head(request), self._sent)
        except h11.LocalProtocolError as error:
            raise AgentGoneError(str(error)) from None
        except OSError as error:
            raise UpstreamError(error.strerror or "connection lost", answered=False) from None
        try:
            await until(self._response(), self._body(), silence(self._flow, idle_seconds))
        except TimeoutError:
            raise UpstreamError("silence", answered=self._answered) from None
        if self._switched:
            await self._websocket(idle_seconds)

    async def _websocket(self, idle_seconds: float) -> None:
        agent, upstream = self._agent, self._upstream
        scrubber = self._scrubber
        try:
            await carry(
                agent.channel,
                agent.http.trailing_data[0],
                upstream.channel,
                upstream.http.trailing_data[0],
                self._flow,
                may_send=self._upgrade == "write",
                scrub=scrubber.feed if scrubber is not None else bytes,
                idle_seconds=idle_seconds,
            )
        except TimeoutError:
            raise UpstreamError("silence", answered=True) from None

    def _head(self, request: h11.Request) -> h11.Request:
        target = self._flow.target
        sent = forwarded_headers(request.headers) if self._filled is None else self._filled.headers
        headers = [(b"host", target.authority.encode()), *sent]
        # `target_of` has made sure that it is one of the two.
        headers += [pair for pair in request.headers if pair[0] in (b"content-length", b"transfer-encoding")]
        if self._upgrade and asks(request.method, request.headers):
            headers = offered(headers)
        else:
            self._upgrade = ""
            headers.append((b"connection", b"close"))
        return h11.Request(method=request.method, target=target.path, headers=headers)

    @property
    def blotted(self) -> int:
        """How often a credential stood in the answer."""
        return self._scrubber.found if self._scrubber is not None else 0

    async def _body(self) -> None:
        if self._whole is not None:
            with contextlib.suppress(OSError):  # as below
                if self._whole:
                    await self._upstream.send(h11.Data(data=self._whole), self._sent)
                await self._upstream.send(h11.EndOfMessage(), self._sent)
            return
        if self._agent.http.they_are_waiting_for_100_continue:
            await self._to_agent(h11.InformationalResponse(status_code=100, headers=[]))
        while True:
            try:
                event = await self._agent.event()
            except h11.RemoteProtocolError as error:
                raise AgentGoneError(str(error)) from None
            except OSError as error:
                raise AgentGoneError(error.strerror or "connection lost") from None
            try:
                if isinstance(event, h11.Data):
                    await self._upstream.send(event, self._sent)
                elif isinstance(event, h11.EndOfMessage):
                    await self._upstream.send(h11.EndOfMessage(), self._sent)  # no trailers: no rule has seen them
                    return
                else:
                    raise AgentGoneError("ended in the middle of a body")
            except OSError:
                return  # the destination hears no more, but may have answered: the response decides

    async def _response(self) -> None:
        while True:
            try:
                event = await self._upstream.event(self._received)
            except h11.RemoteProtocolError as error:
                raise UpstreamError(str(error), answered=self._answered) from None
            except OSError as error:
                raise UpstreamError(error.strerror or "connection lost", answered=self._answered) from None
            if isinstance(event, h11.Response):
                relayed = self._relayed(event)
                self._answered = True
                await self._to_agent(relayed)
            elif isinstance(event, h11.Data):
                await self._data(bytes(event.data))
            elif isinstance(event, h11.EndOfMessage):
                if self._scrubber is not None and (rest := self._scrubber.end()):
                    await self._to_agent(h11.Data(data=rest))
                await self._to_agent(h11.EndOfMessage())
                return
            elif isinstance(event, h11.InformationalResponse) and event.status_code == 101:
                await self._switch(event)
                return
            elif isinstance(event, h11.InformationalResponse):
                self._informed += 1
                if self._informed > _MOST_INFORMATIONAL:
                    raise UpstreamError("informational responses without end", answered=self._answered)
            elif isinstance(event, h11.ConnectionClosed):
                raise UpstreamError("closed without an answer", answered=self._answered)

    async def _switch(self, event: h11.InformationalResponse) -> None:
        names = {name for name, _ in event.headers}
        if not self._upgrade or b"sec-websocket-extensions" in names:
            raise UpstreamError("a change of protocol that was not asked for", answered=self._answered)
        headers = [pair for pair in event.headers if pair[0].startswith(b"sec-websocket-")]
        self._answered = self._switched = True
        await self._to_agent(h11.InformationalResponse(status_code=101, headers=offered(headers)))

    async def _data(self, data: bytes) -> None:
        if self._scrubber is not None:
            data = self._scrubber.feed(data)
        if data:
            await self._to_agent(h11.Data(data=data))

    def _relayed(self, response: h11.Response) -> h11.Response:
        headers = [pair for pair in forwarded_headers(response.headers) if pair[0] != b"proxy-status"]
        if not any(name == b"transfer-encoding" for name, _ in response.headers):
            headers += [pair for pair in response.headers if pair[0] == b"content-length"]
        if self._scrubber is not None:
            coding = [value.lower() for name, value in response.headers if name == b"content-encoding"]
            if any(value != b"identity" for value in coding):
                raise UpstreamError("the answer is encoded, and cannot be searched for the credential", answered=False)
            headers = [(name, self._scrubber.whole(value)) for name, value in headers]
        return h11.Response(status_code=response.status_code, headers=headers, reason=response.reason)

    async def _to_agent(self, event: h11.InformationalResponse | h11.Response | h11.Data | h11.EndOfMessage) -> None:
        try:
            await self._agent.send(event)
        except OSError as error:
            raise AgentGoneError(error.strerror or "connection lost") from None
        except h11.LocalProtocolError as error:
            raise UpstreamError(f"not a response that can be passed on: {error}", answered=self._answered) from None

    def _sent(self, count: int) -> None:
        self._flow.count(sent=count)

    def _received(self, count: int) -> None:
        self._flow.count(received=count)
