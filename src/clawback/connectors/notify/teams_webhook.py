"""Microsoft Teams: a webhook of a workflow, which answers `202`; an older connector's answers `200` and `1`.

The message is an adaptive card of text runs: those are shown as they are, where a text block would be read as Markdown
(https://adaptivecards.io/explorer/TextRun.html).
"""

from __future__ import annotations

import json
from typing import Any

from clawback.connectors.notify import Message
from clawback.reports.notice import render, text
from clawback.world.notices import Notice

__all__ = ["took", "write"]


def write(notice: Notice, *, key: str, secret: str, now: float) -> Message:
    """See `Channel.write`."""
    del key, secret, now
    card = {
        "type": "AdaptiveCard",
        "version": "1.4",
        "$schema": "http://adaptivecards.io/schemas/adaptive-card.json",
        "body": [_line(line, bold=number == 0) for number, line in enumerate(render(notice, text).splitlines())],
    }
    body = {
        "type": "message",
        "attachments": [
            {"contentType": "application/vnd.microsoft.card.adaptive", "contentUrl": None, "content": card}
        ],
    }
    return Message(body=json.dumps(body).encode(), headers={"Content-Type": "application/json"})


def _line(said: str, *, bold: bool) -> dict[str, Any]:
    run = {"type": "TextRun", "text": said, "weight": "Bolder" if bold else "Default"}
    return {"type": "RichTextBlock", "inlines": [run]}


def took(status: int, body: bytes, notice: Notice) -> bool:
    """See `Channel.took`. The older connector answers `200` to what it could not deliver as well, and says so."""
    del notice
    return status == 202 or (status == 200 and body.strip() == b"1")
