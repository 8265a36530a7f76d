"""What chats send answers to: `POST /CHANNEL`, verified, turned into the vote of a known person.

Whoever is refused is told nothing but that; why is in the log. It is meant to stand behind a proxy that ends TLS.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass, field

import structlog
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from clawback.connectors.callbacks import MAX_BODY, Said, channel
from clawback.errors import ClawbackError, InvalidInput, NotFound, Refused
from clawback.journal import Journal

__all__ = ["Sender", "answers"]

_SECONDS = 5.0  # for a body to arrive in

_log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class Sender:
    """One channel's settings: its signing secret, and which of its users is which person."""

    secret: bytes = field(repr=False)
    people: Mapping[str, str]


def answers(journal: Journal, senders: Mapping[str, Sender]) -> Starlette:
    """The application; `senders` by channel."""

    async def post(request: Request) -> Response:
        name = request.path_params["channel"]
        sender = senders.get(name)
        try:
            if sender is None:
                raise NotFound(f"no channel {name[:40]!a} is configured")
            async with asyncio.timeout(_SECONDS):
                body = await _body(request)
            return PlainTextResponse(await run_in_threadpool(_vote, journal, name, sender, body, dict(request.headers)))
        except ClawbackError as error:
            _log.warning("an answer was not taken", channel=name[:40], reason=error.message)
            if isinstance(error, Refused):
                return PlainTextResponse("refused\n", 403)
            return PlainTextResponse("not found\n" if isinstance(error, NotFound) else "no answer\n", _status(error))
        except ClientDisconnect:
            return Response(status_code=400)
        except TimeoutError:
            return PlainTextResponse("too slow\n", 408, headers={"Connection": "close"})

    return Starlette(routes=[Route("/{channel}", post, methods=["POST"])])


def _status(error: ClawbackError) -> int:
    return 404 if isinstance(error, NotFound) else 400 if isinstance(error, InvalidInput) else 503


async def _body(request: Request) -> bytes:
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > MAX_BODY:
            raise InvalidInput(f"more than {MAX_BODY} bytes")
    return bytes(body)


def _vote(journal: Journal, name: str, sender: Sender, body: bytes, headers: Mapping[str, str]) -> str:
    said: Said = channel(name).read(body, headers, sender.secret, time.time())
    who = sender.people.get(said.user)
    if who is None:
        raise Refused(f"{name} user {said.user[:80]!a} is nobody that is configured")
    now = journal.answer(said.approval, nonce=said.nonce, who=who, grant=said.grant, reason=f"by {name}", channel=name)
    return f"{now.id}: {now.state.value}\n"
