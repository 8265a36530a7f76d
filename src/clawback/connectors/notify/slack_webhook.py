"""Slack: an incoming webhook. It answers `200` and the text `ok`; anything else is a refusal.

https://api.slack.com/messaging/webhooks: `text` is what a notification shows; a section takes 3,000 characters.
"""

from __future__ import annotations

import json

from clawback.connectors.notify import Message
from clawback.reports.notice import mrkdwn, render
from clawback.world.notices import Notice

__all__ = ["took", "write"]

_SECTION = 3000


def write(notice: Notice, *, key: str, secret: str, now: float) -> Message:
    """See `Channel.write`."""
    del key, secret, now
    lines, shown = render(notice, mrkdwn).splitlines(), ""
    for line in lines:  # whole lines: a span that is cut would swallow what follows
        if len(shown) + len(line) + 1 <= _SECTION:
            shown += line + "\n"
    body = {
        "text": f"Incident {mrkdwn(notice.incident)}: {mrkdwn(notice.title)}",
        "blocks": [{"type": "section", "text": {"type": "mrkdwn", "text": shown, "verbatim": True}}],
        "unfurl_links": False,
        "unfurl_media": False,
    }
    return Message(body=json.dumps(body).encode(), headers={"Content-Type": "application/json"})


def took(status: int, body: bytes, notice: Notice) -> bool:
    """See `Channel.took`."""
    del notice
    return status == 200 and body.strip() == b"ok"
