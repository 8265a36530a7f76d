"""The gateway's own answers to an agent, and the end of a connection such that they are read."""

from __future__ import annotations

import asyncio
import contextlib
import http
import json
import socket

import h11

from clawback.enforcement.gateway.sockets import CHUNK
from clawback.enforcement.gateway.wire import Wire
from clawback.model import Decision

__all__ = ["drain", "proxy_status", "refuse", "reusable", "skip_empty_body"]

_MOST_NAMED = 32
_MAX_DRAIN = 4 * 1024 * 1024


async def refuse(wire: Wire, status: int, kind: str, reason: str, *, decision: Decision | None, linger: float) -> bool:
    """Answer with an error; True where another request may follow on the connection."""
    body: dict[str, str | int] = {"error": kind, "reason": reason}
    if decision is not None:
        body |= {"rule": decision.rule, "level": decision.level, "policy_version": decision.policy_version}
    data = json.dumps(body).encode()
    headers = [("content-type", "application/json"), ("content-length", str(len(data)))]
    if decision is not None:
        headers.append(("proxy-status", proxy_status(decision)))
    if wire.http.our_state not in {h11.IDLE, h11.SEND_RESPONSE}:
        return False
    skip_empty_body(wire)
    if wire.http.their_state in {h11.IDLE, h11.SEND_BODY, h11.ERROR}:
        headers.append(("connection", "close"))
    await wire.send(h11.Response(status_code=status, headers=headers, reason=http.HTTPStatus(status).phrase.encode()))
    await wire.send(h11.Data(data=data))
    await wire.send(h11.EndOfMessage())
    if not reusable(wire):
        await drain(wire, linger)
        return False
    return True


def proxy_status(decision: Decision, *, error: str = "http_request_denied") -> str:
    """RFC 9209: what denied. The gateway alone says this; a destination that says so too is not passed on."""
    rules = [f"order:{order}" for order in decision.orders[:_MOST_NAMED]] or [decision.rule]
    named = " ".join(rule for rule in rules if rule.isascii() and rule.isprintable() and not set(rule) & {'"', "\\"})
    return f'clawback; error={error}; details="{decision.level} {named}"'


def reusable(wire: Wire) -> bool:
    """Both sides are done with this request, and may go on."""
    return wire.http.our_state is h11.DONE and wire.http.their_state is h11.DONE


def skip_empty_body(wire: Wire) -> None:
    """A request without a body still has its end to be read, before the next one can be."""
    state = wire.http
    if state.their_state is h11.SEND_BODY and not state.they_are_waiting_for_100_continue:
        with contextlib.suppress(h11.RemoteProtocolError):
            state.next_event()


async def drain(wire: Wire, seconds: float) -> None:
    """Read on for a moment: closing on unread data would reset the connection before the answer is read."""
    loop, sock = asyncio.get_running_loop(), wire.channel.sock
    with contextlib.suppress(OSError, TimeoutError):
        await wire.channel.finish()
        sock.shutdown(socket.SHUT_WR)
        async with asyncio.timeout(seconds):
            left = _MAX_DRAIN
            while left > 0 and (data := await loop.sock_recv(sock, CHUNK)):
                left -= len(data)
                await asyncio.sleep(0)
