"""A message about an incident: short, and without secrets, whatever the agent put into the record."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from clawback.connectors.notify import pagerduty_events_v2, slack_webhook, teams_webhook, webhook
from clawback.model import Incident
from clawback.reports.notice import mrkdwn, notice, render, text

KINDS = (pagerduty_events_v2, slack_webhook, teams_webhook, webhook)
SECRETS = (
    "hvs.CAESIJ0123456789abcdefghijklmnop",
    "ghp_0123456789abcdefghijklmnopqrstuvwxyz",
    "xoxb-123456789012-abcdefghij",
    "password=correct-horse-battery",
    "Bearer abcdefghijklmnopqrstuvwxyz",
)


def test_it_says_what_was_done_and_stays_short(make: Callable[..., Incident]) -> None:
    said = notice(make("x" * 5000, lines=500))
    shown = render(said, text)
    assert "severity" in shown
    assert said.incident in shown
    assert len(said.lines) <= 10
    assert len(shown) < 4000
    assert any(line.startswith("agent.freeze verified (full)") for line in said.lines)


@pytest.mark.slow
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(before=st.text(max_size=300), secret=st.sampled_from(SECRETS), after=st.text(max_size=40))
def test_no_secret_is_in_any_message(make: Callable[..., Incident], before: str, secret: str, after: str) -> None:
    said = notice(make(f"{before} {secret} {after}"))
    bodies = [kind.write(said, key="k", secret="", now=0.0).body.decode() for kind in KINDS]
    everything = json.dumps(asdict(said)) + "".join(bodies)
    assert secret.rpartition("=")[2].rpartition(" ")[2] not in everything


@pytest.mark.slow
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(written=st.text())
def test_whatever_the_agent_wrote_every_line_is_one_line_and_every_span_is_closed(
    make: Callable[..., Incident], written: str
) -> None:
    said = notice(make(written))
    lines = render(said, mrkdwn).split("\n")
    assert len(lines) == len(render(said, text).split("\n"))
    for line in lines:
        assert line.count("`") % 2 == 0
        assert line.isprintable()
        assert not set("<>") & set(line)
    for kind in KINDS:
        json.loads(kind.write(said, key="k", secret="s", now=0.0).body)
