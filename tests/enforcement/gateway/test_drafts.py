"""Drafts of a running gateway, by its client: made from a version, put in force by nobody, true once they are."""

from __future__ import annotations

import pytest

from clawback.connectors.telemetry import FileTelemetry
from clawback.errors import InvalidInput, NotFound
from clawback.model import Attempt, HttpActivity, Narrowing

pytestmark = pytest.mark.slow


def get(gateway, sink, host: str, path: str = "/") -> bytes:
    raw = f"GET http://{host}:{sink.port}{path} HTTP/1.1\r\nHost: {host}:{sink.port}\r\nConnection: close\r\n\r\n"
    return gateway.send(raw.encode())[:12]


def test_a_draft_changes_nothing_until_it_is_put_and_then_decides_as_it_said(gateway, sink):
    sink.reply = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"
    client, here = gateway.client, f"http://good.test:{sink.port}"
    assert get(gateway, sink, "good.test", "/v1/tickets/7") == b"HTTP/1.1 200"
    telemetry = FileTelemetry(gateway.state / "telemetry")
    seen = gateway.until(lambda: [x for x in telemetry.events(since_ns=0).events if isinstance(x, HttpActivity)])
    assert (seen[0].agent, seen[0].host, seen[0].path, seen[0].blocked) == (
        "rogue",
        "good.test",
        "/v1/tickets/7",
        False,
    )
    use, rogue = (
        Attempt(kind="http", target=f"GET {here}/v1/tickets/7"),
        Attempt(kind="http", target=f"GET {here}/admin"),
    )
    draft = client.draft("test", 1, Narrowing(deny=(rogue,), keep=(use,), drop=True), attempts=(use, rogue))
    assert [one.allowed for one in draft.decisions] == [True, False]
    assert client.active("test").version == 1
    assert get(gateway, sink, "good.test", "/admin") == b"HTTP/1.1 200"
    new = client.put("test", draft.text, author="soc", reason="tightened", incident="INC-1", known_good=True)
    assert (new.sha256, new.incident, client.active("test")) == (draft.sha256, "INC-1", new)
    assert [get(gateway, sink, "good.test", path) for path in ("/v1/tickets/8", "/admin", "/else")] == [
        b"HTTP/1.1 200",
        b"HTTP/1.1 403",
        b"HTTP/1.1 403",
    ]
    began = seen[0].time_ns + 1
    denied = gateway.until(
        lambda: [x for x in telemetry.events(instance=seen[0].instance, since_ns=began).events if x.blocked][1:]
    )
    assert denied[-1].path == "/else"


def test_what_is_not_there_or_not_sound_is_said(gateway):
    with pytest.raises(NotFound):
        gateway.client.draft("test", 99, Narrowing())
    with pytest.raises(InvalidInput, match="share"):
        gateway.client.draft("test", 1, Narrowing(share=2))
