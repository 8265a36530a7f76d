"""`approvals serve`: take answers by signed callbacks of Slack, Teams and PagerDuty."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from clawback.cli.app import settings
from clawback.cli.approvals import approvals
from clawback.errors import InvalidInput

__all__: list[str] = []


_AT_ONCE = 64  # requests; more are told 503, so that a flood keeps no answer's file descriptor


@approvals.command()
def serve(
    *,
    listen: Annotated[
        str, typer.Option(help="ADDRESS:PORT, over the settings'; a proxy that ends TLS stands before it")
    ] = "",
) -> None:
    """Take answers by signed callbacks, at /slack, /teams and /pagerduty, as `approvals.channels` configures them."""
    import uvicorn

    from clawback.connectors.answers import Sender, answers
    from clawback.connectors.callbacks import channel
    from clawback.journal import Journal

    chosen = settings()
    if not chosen.approvals.channels:
        raise InvalidInput("approvals.channels: none is configured", hint="see docs/configuration.md")
    for name in chosen.approvals.channels:
        channel(name)
    senders = {
        name: Sender(secret=_secret(name, one.secret_file), people=dict(one.people))
        for name, one in chosen.approvals.channels.items()
    }
    host, port = _address(listen or chosen.approvals.listen)
    uvicorn.run(
        answers(Journal(chosen.journal), senders),
        host=host,
        port=port,
        log_config=None,
        server_header=False,
        limit_concurrency=_AT_ONCE,
        timeout_keep_alive=5,
        timeout_graceful_shutdown=2,
        h11_max_incomplete_event_size=16_384,
    )


def _address(text: str) -> tuple[str, int]:
    host, colon, port = text.rpartition(":")
    if not colon or not host or not (port.isascii() and port.isdigit()) or not 0 < int(port) < 65_536:
        raise InvalidInput(f"approvals.listen: {text[:80]!a} is no address", hint="such as 127.0.0.1:8471")
    return host.strip("[]"), int(port)


def _secret(name: str, file: Path) -> bytes:
    try:
        if file.stat().st_mode & 0o077:
            raise InvalidInput(f"approvals.channels.{name}.secret_file: {file} is open to others", hint="chmod 600")
        return file.read_bytes().strip()
    except OSError as error:
        raise InvalidInput(f"approvals.channels.{name}.secret_file: {file}: {error.strerror}") from None
