"""Channels against a recorder on loopback: what arrives, what is taken for delivered, and what never leaves."""

from __future__ import annotations

import hashlib
import hmac
import json
import logging
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import structlog

from clawback.config import ChannelSettings, NotifySettings
from clawback.connectors.notify import Channels, kinds
from clawback.world.notices import Notice, Outcome

KEY = "e93facc04764012d7bfb002500d5d1a6"
PATH = "/services/T0000/B0000/a-secret-path-0123456789"

# The request of PagerDuty's own OpenAPI document of its Events API v2, with the limits that its guide adds.
PAGERDUTY = {
    "type": "object",
    "required": ["routing_key", "event_action"],
    "additionalProperties": False,
    "properties": {
        "routing_key": {"type": "string", "minLength": 32, "maxLength": 32},
        "event_action": {"enum": ["trigger", "acknowledge", "resolve"]},
        "dedup_key": {"type": "string", "maxLength": 255},
        "client": {"type": "string"},
        "client_url": {"type": "string", "format": "uri"},
        "links": {"type": "array"},
        "images": {"type": "array"},
        "payload": {
            "type": "object",
            "required": ["summary", "severity", "source"],
            "additionalProperties": False,
            "properties": {
                "summary": {"type": "string", "minLength": 1, "maxLength": 1024},
                "timestamp": {"type": "string", "format": "date-time"},
                "severity": {"enum": ["critical", "warning", "error", "info"]},
                "source": {"type": "string", "minLength": 1},
                "component": {"type": "string"},
                "group": {"type": "string"},
                "class": {"type": "string"},
                "custom_details": {"type": "object"},
            },
        },
    },
    "if": {"properties": {"event_action": {"const": "trigger"}}},
    "then": {"required": ["payload"]},
    "else": {"required": ["dedup_key"]},
}

HOSTILE = "<!channel> *bold* `code` [x](https://evil.test) <https://evil.test|here> @here & _it_"


class Recorder:
    def __init__(self) -> None:
        self.got: list[tuple[dict[str, str], bytes]] = []
        self.answers: list[tuple[int, bytes]] = []
        self.usual: tuple[int, bytes] = (200, b"ok")


@pytest.fixture
def recorder() -> Iterator[tuple[Recorder, str]]:
    kept = Recorder()

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: Any) -> None: ...

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            kept.got.append(({key.lower(): value for key, value in self.headers.items()}, body))
            status, answer = kept.answers.pop(0) if kept.answers else kept.usual
            self.send_response(status)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    yield kept, f"http://127.0.0.1:{http.server_address[1]}{PATH}"
    http.shutdown()
    thread.join()
    http.server_close()


@pytest.fixture
def make(recorder: tuple[Recorder, str], tmp_path: Path) -> Callable[..., Channels]:
    def file(name: str, text: str) -> Path:
        path = tmp_path / name
        path.write_text(text)
        path.chmod(0o600)
        return path

    def channels(kind: str, *, url: str = recorder[1], secret: str = KEY) -> Channels:
        if kind == "pagerduty-events-v2":
            settings = ChannelSettings(kind=kind, url=url, secret_file=file("key", secret))
        elif kind == "webhook":
            settings = ChannelSettings(kind=kind, url_file=file("url", url), secret_file=file("secret", secret))
        else:
            settings = ChannelSettings(kind=kind, url_file=file("url", url))
        return Channels(tmp_path / "notices", {"it": settings})

    return channels


def notice(**changes: Any) -> Notice:
    values: dict[str, Any] = {
        "incident": "INC-1", "title": "Talks to strangers", "severity": "critical", "agent": "support-1",
        "status": "open, phase contain", "at": "2026-11-20T10:00:00.000+00:00", "drill": False, "over": False,
        "lines": ("agent.freeze verified (full): 3 processes frozen",),
    }  # fmt: skip
    return Notice(**{**values, **changes})


ACCEPTS = {
    "slack-webhook": (200, b"ok"),
    "teams-webhook": (202, b""),
    "pagerduty-events-v2": (202, b'{"status": "success", "message": "Event processed", "dedup_key": "INC-1"}'),
    "webhook": (204, b""),
}


def test_every_kind_is_tried_below() -> None:
    assert set(kinds()) == set(ACCEPTS)


@pytest.mark.parametrize("kind", ACCEPTS)
def test_delivered_is_what_the_channel_is_documented_to_answer(
    recorder: tuple[Recorder, str], make: Any, kind: str
) -> None:
    recorder[0].usual = ACCEPTS[kind]
    channels = make(kind)
    first = channels.send(notice(), key="INC-1/opened/0", channels=("it",))["it"]
    assert first.outcome is Outcome.DELIVERED, first.answer
    assert channels.send(notice(), key="INC-1/opened/0", channels=("it",))["it"] == first
    assert len(recorder[0].got) == 1, "what was delivered is not sent again"
    channels.send(notice(), key="INC-1/latest/1", channels=("it",))
    assert len(recorder[0].got) == 2


@pytest.mark.parametrize(
    ("kind", "answer"),
    [
        ("slack-webhook", (200, b"<html>a proxy's page</html>")),
        ("slack-webhook", (404, b"no_service")),
        ("slack-webhook", (302, b"")),
        ("teams-webhook", (200, b"Webhook message delivery failed with error: 429")),
        ("teams-webhook", (400, b"")),
        ("pagerduty-events-v2", (202, b"thank you")),
        ("pagerduty-events-v2", (202, b'{"status": "success", "dedup_key": "another"}')),
        ("pagerduty-events-v2", (200, b'{"status": "success", "dedup_key": "INC-1"}')),
        ("pagerduty-events-v2", (400, b'{"status": "invalid event", "errors": ["routing_key"]}')),
        ("webhook", (403, b"signature")),
    ],
)
def test_a_lie_or_a_refusal_is_not_delivered(
    recorder: tuple[Recorder, str], make: Any, kind: str, answer: tuple[int, bytes]
) -> None:
    recorder[0].usual = answer
    channels = make(kind)
    said = channels.send(notice(), key="k", channels=("it",))["it"]
    assert said.outcome is Outcome.REFUSED
    recorder[0].usual = ACCEPTS[kind]
    assert channels.send(notice(), key="k", channels=("it",))["it"].outcome is Outcome.DELIVERED, "it is tried again"


@pytest.mark.slow
def test_what_is_busy_or_broken_is_asked_again_and_then_left_for_later(
    recorder: tuple[Recorder, str], make: Any
) -> None:
    recorder[0].answers = [(429, b""), (503, b"")]
    assert make("slack-webhook").send(notice(), key="a", channels=("it",))["it"].outcome is Outcome.DELIVERED
    assert len(recorder[0].got) == 3
    recorder[0].usual = (500, b"")
    assert make("slack-webhook").send(notice(), key="b", channels=("it",))["it"].outcome is Outcome.SILENT


@pytest.mark.slow
def test_nobody_there_is_silent_and_says_no_address(make: Any) -> None:
    with structlog.testing.capture_logs() as logged:
        said = make("slack-webhook", url=f"http://127.0.0.1:1{PATH}").send(notice(), key="a", channels=("it",))["it"]
    assert said.outcome is Outcome.SILENT
    assert "a-secret-path" not in said.answer + json.dumps(logged, default=repr)


@pytest.mark.parametrize("kind", ACCEPTS)
def test_neither_address_nor_key_is_in_what_is_said_kept_or_logged(
    recorder: tuple[Recorder, str], make: Any, tmp_path: Path, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    said_back = KEY if kind in ("webhook", "pagerduty-events-v2") else ""
    recorder[0].usual = (400, f"you sent {said_back} to {recorder[1]} at {PATH}".encode())
    channels = make(kind)
    said = channels.send(notice(), key="a", channels=("it",))["it"]
    recorder[0].usual = ACCEPTS[kind]
    channels.send(notice(), key="a", channels=("it",))
    kept = "".join(path.read_text() for path in (tmp_path / "notices").rglob("*.json"))
    everything = said.answer + repr(channels.channels()) + kept + caplog.text
    assert KEY not in everything
    assert "a-secret-path" not in everything


def test_pagerduty_gets_what_its_schema_asks_for(recorder: tuple[Recorder, str], make: Any) -> None:
    recorder[0].usual = ACCEPTS["pagerduty-events-v2"]
    channels = make("pagerduty-events-v2")
    cases = [notice(), notice(title=HOSTILE * 40, severity="low"), notice(drill=True), notice(over=True)]
    for number, case in enumerate(cases):
        assert channels.send(case, key=str(number), channels=("it",))["it"].outcome is Outcome.DELIVERED
    events = [json.loads(body) for _, body in recorder[0].got]
    for event in events:
        jsonschema.validate(event, PAGERDUTY)
        assert (event["dedup_key"], event["routing_key"]) == ("INC-1", KEY)
    assert [event["event_action"] for event in events] == ["trigger", "trigger", "trigger", "resolve"]
    assert [event["payload"]["severity"] for event in events[:3]] == ["critical", "info", "info"]
    assert events[2]["payload"]["summary"].startswith("DRILL ")
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(events[0] | {"payload": {}}, PAGERDUTY)


def test_slack_formats_links_and_mentions_nothing_that_an_agent_wrote(
    recorder: tuple[Recorder, str], make: Any
) -> None:
    make("slack-webhook").send(notice(title=HOSTILE, lines=(HOSTILE,) * 30), key="a", channels=("it",))
    message = json.loads(recorder[0].got[0][1])
    (section,) = message["blocks"]
    assert len(section["text"]["text"]) <= 3000
    for shown in (message["text"], section["text"]["text"]):
        assert "<" not in shown
        assert "://" not in shown
        assert "@here" not in shown
        assert shown.count("`") % 2 == 0
        outside = "".join(shown.split("`")[::2])
        assert not set("*_~&") & set(outside), "all that could be formatted is inside code spans"
    assert "&lt;!channel&gt; *bold* 'code'" in section["text"]["text"]


def test_teams_shows_text_runs_alone(recorder: tuple[Recorder, str], make: Any) -> None:
    recorder[0].usual = ACCEPTS["teams-webhook"]
    make("teams-webhook").send(notice(title=HOSTILE), key="a", channels=("it",))
    (attachment,) = json.loads(recorder[0].got[0][1])["attachments"]
    blocks = attachment["content"]["body"]
    assert {block["type"] for block in blocks} == {"RichTextBlock"}, "a text block would be read as Markdown"
    runs = [run for block in blocks for run in block["inlines"]]
    assert {run["type"] for run in runs} == {"TextRun"}
    assert not any("://" in run["text"] or "@here" in run["text"] for run in runs)


def test_a_webhook_s_signature_is_over_time_and_body(recorder: tuple[Recorder, str], make: Any) -> None:
    channels = make("webhook")
    channels.send(notice(), key="INC-1/opened/0", channels=("it",))
    headers, body = recorder[0].got[0]
    signed = b"v1:" + headers["x-clawback-timestamp"].encode() + b":" + body
    assert headers["x-clawback-signature"] == "v1=" + hmac.new(KEY.encode(), signed, hashlib.sha256).hexdigest()
    assert json.loads(body)["id"] == "INC-1/opened/0"
    assert json.loads(body)["lines"] == list(notice().lines)


def test_a_file_that_others_may_read_is_refused_by_name(make: Any, tmp_path: Path) -> None:
    channels = make("slack-webhook")
    (tmp_path / "url").chmod(0o640)
    said = channels.send(notice(), key="a", channels=("it",))["it"]
    assert said.outcome is Outcome.REFUSED
    assert "chmod 600" in said.answer


@pytest.mark.parametrize(
    "channel",
    [
        {"kind": "slack-webhook", "url": "https://hooks.slack.com/services/T/B/X"},
        {"kind": "slack-webhook"},
        {"kind": "webhook", "url_file": "/x"},
        {"kind": "pagerduty-events-v2"},
        {"kind": "pagerduty-events-v2", "secret_file": "/x", "url": "http://events.example.test"},
        {"kind": "carrier-pigeon", "url_file": "/x"},
    ],
)
def test_settings_that_are_incomplete_or_give_a_secret_away_are_refused(channel: dict[str, str]) -> None:
    with pytest.raises(ValueError) as raised:
        NotifySettings(channels={"it": channel})
    assert "hooks.slack.com" not in str(raised.value.errors(include_input=False))  # type: ignore[attr-defined]
