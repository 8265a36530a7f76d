"""`approvals serve`: take answers by signed callbacks of Slack, Teams and PagerDuty."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from clawback.cli.app import settings
from clawback.cli.approvals import approvals
from clawback.errors import InvalidInput

__all__: list[str] = []


@approvals.command()
def serve(
    *,
    host: Annotated[
        str, typer.Option(help="address to listen on; a proxy that ends TLS stands before it")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535)] = 8471,
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
    uvicorn.run(answers(Journal(chosen.journal), senders), host=host, port=port, log_config=None, server_header=False)


def _secret(name: str, file: Path) -> bytes:
    try:
        if file.stat().st_mode & 0o077:
            raise InvalidInput(f"approvals.channels.{name}.secret_file: {file} is open to others", hint="chmod 600")
        return file.read_bytes().strip()
    except OSError as error:
        raise InvalidInput(f"approvals.channels.{name}.secret_file: {file}: {error.strerror}") from None
