"""PagerDuty: the Events API v2. It answers `202` and `{"status": "success", "dedup_key": …}`.

One incident is one alert: its id is the `dedup_key`, so a message that is sent twice is one. The address is
https://events.pagerduty.com/v2/enqueue (https://events.eu.pagerduty.com/v2/enqueue in the EU); the integration's key
goes into the body. A summary has at most 1,024 characters.
"""

from __future__ import annotations

import json
from typing import Any

from clawback.connectors.notify import Message
from clawback.reports.notice import render, text
from clawback.world.notices import Notice

__all__ = ["took", "write"]

_SEVERITIES = {"fatal": "critical", "critical": "critical", "high": "error", "medium": "warning"}


def write(notice: Notice, *, key: str, secret: str, now: float) -> Message:
    """See `Channel.write`."""
    del key, now
    event: dict[str, Any] = {
        "routing_key": secret,
        "event_action": "resolve" if notice.over else "trigger",
        "dedup_key": notice.incident,
    }
    if not notice.over:
        severity = "info" if notice.drill else _SEVERITIES.get(notice.severity, "info")  # a drill wakes nobody
        lines = render(notice, text).splitlines()
        event |= {
            "client": "Clawback",
            "payload": {
                "summary": text(f"{'DRILL ' * notice.drill}{notice.incident}: {notice.title}")[:1024],
                "severity": severity,
                "source": text(notice.agent) or "unknown",
                "timestamp": notice.at,
                "component": "agent",
                "class": "agent incident",
                "custom_details": {"lines": lines},
            },
        }
    return Message(body=json.dumps(event).encode(), headers={"Content-Type": "application/json"})


def took(status: int, body: bytes, notice: Notice) -> bool:
    """See `Channel.took`."""
    try:
        said = json.loads(body)
    except ValueError:
        return False
    success = isinstance(said, dict) and said.get("status") == "success"
    return status == 202 and success and said.get("dedup_key", notice.incident) == notice.incident
