"""Prefect's own server on loopback, with two repairs for SQLite: `python -m clawback.orchestrate.server PORT`.

Stock, a transaction that reads first and writes later is refused when another wrote meanwhile, the server answers 503,
and the client waits 2 s before it tries again. So every transaction takes the write lock when it begins, and a 503 that
is left asks for a retry in 20 ms. Its pages may connect to itself and to nobody else. Everything else is set by the
environment (`clawback.services.prefect_server`).
"""

from __future__ import annotations

import sys
from collections.abc import AsyncGenerator, Awaitable, Callable, MutableMapping
from contextlib import asynccontextmanager
from typing import Any

import uvicorn
from prefect.server.api.server import create_app
from prefect.server.database import configurations

__all__ = ["main"]

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]


class Repaired:
    """ASGI: adds `Retry-After: 0.02` to every 503 that has none, and to every page that it may connect to us alone."""

    def __init__(self, app: Callable[..., Awaitable[None]], port: int) -> None:
        self.app = app
        own = " ".join(f"{kind}://{host}:{port}" for kind in ("http", "ws") for host in ("127.0.0.1", "localhost"))
        self._policy = f"connect-src 'self' {own}; form-action 'self'; frame-ancestors 'none'".encode()

    async def __call__(
        self,
        scope: Scope,
        receive: Callable[[], Awaitable[Message]],
        send: Callable[[Message], Awaitable[None]],
    ) -> None:
        """Pass everything on."""

        async def answer(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = list(message.get("headers", ()))
                there = {name.lower(): value for name, value in headers}
                if message["status"] == 503 and b"retry-after" not in there:
                    headers.append((b"retry-after", b"0.02"))
                if there.get(b"content-type", b"").startswith(b"text/html"):
                    headers.append((b"content-security-policy", self._policy))
                message = {**message, "headers": headers}
            await send(message)

        await self.app(scope, receive, answer)


@asynccontextmanager
async def _begin_immediate(_self: Any, session: Any, with_for_update: bool = False) -> AsyncGenerator[Any, None]:  # noqa: FBT001, FBT002 - Prefect's signature
    del with_for_update
    token = configurations.SQLITE_BEGIN_MODE.set("IMMEDIATE")
    try:
        async with session.begin() as transaction:
            yield transaction
    finally:
        configurations.SQLITE_BEGIN_MODE.reset(token)


def main() -> None:
    """Serve until told to stop."""
    configurations.AioSqliteConfiguration.begin_transaction = _begin_immediate  # type: ignore[method-assign, assignment]  # the repair
    port = int(sys.argv[1])
    uvicorn.run(
        Repaired(create_app(final=True), port),
        host="127.0.0.1",
        port=port,
        log_level="warning",
        access_log=False,
        timeout_keep_alive=60,
        timeout_graceful_shutdown=1,
    )


if __name__ == "__main__":
    main()
