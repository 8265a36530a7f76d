"""Requests as an agent sends them, honest and not, through a real gateway to a real destination."""

from __future__ import annotations

import http.client
import json
import socket
import time

import pytest

from clawback.model import Source
from clawback.model.ocsf import parse_line

pytestmark = pytest.mark.slow


def status(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1]) if answer else 0


def body(answer: bytes) -> dict:
    return json.loads(answer.partition(b"\r\n\r\n")[2])


def get(path: str, host: str, port: int, extra: str = "", method: str = "GET") -> bytes:
    return f"{method} http://{host}:{port}{path} HTTP/1.1\r\nHost: {host}:{port}\r\n{extra}\r\n".encode()


def test_an_allowed_request_arrives_reframed_and_is_recorded(gateway, sink):
    extra = "Connection: keep-alive, X-Drop\r\nX-Drop: 1\r\nX-Keep: 2\r\nProxy-Authorization: Basic eA==\r\nTE: a\r\n"
    assert status(gateway.send(get("/a/b?x=1", "GOOD.test.", sink.port, extra))) == 200
    lines = sink.data.decode().split("\r\n")
    assert lines[0] == "GET /a/b?x=1 HTTP/1.1"
    names = {line.partition(":")[0].lower(): line.partition(":")[2].strip() for line in lines[1:] if line}
    assert names == {"host": f"good.test:{sink.port}", "x-keep": "2", "connection": "close"}
    event = gateway.until(lambda: gateway.events(4002))[0]
    assert event["disposition_id"] == 1
    close = gateway.until(lambda: [e for e in gateway.events(4001) if e["activity_id"] == 2])[0]
    assert json.dumps(close).count("good.test") >= 1
    gateway.until(lambda: sink.ended == ["end"])


def test_a_request_that_asks_to_close_ends_cleanly_on_both_sides(gateway, sink):
    with gateway.dial() as sock:
        sock.sendall(get("/", "good.test", sink.port, "Connection: close\r\n"))
        assert status(gateway.answer(sock)) == 200
        assert sock.recv(100) == b""
    gateway.until(lambda: sink.ended == ["end"])


def test_a_denied_request_is_answered_recorded_and_never_sent(gateway, sink):
    answer = gateway.send(get("/", "evil.test", sink.port))
    assert status(answer) == 403
    assert body(answer) == {"error": "denied", "rule": "", "reason": "no rule allows it", "level": "destination",
                            "policy_version": 1}  # fmt: skip
    assert sink.received == 0
    (event,) = gateway.until(lambda: gateway.events(4002))
    assert event["disposition_id"] == 2


def test_each_request_of_a_connection_is_decided_anew(gateway, sink):
    connection = http.client.HTTPConnection("127.0.0.1", gateway.port, timeout=10)
    wanted = []
    for path, method in (("/1", "GET"), ("/secret/1", "GET"), ("/2", "POST"), ("/3", "DELETE"), ("/4", "GET")):
        connection.request(method, f"http://good.test:{sink.port}{path}", body=b"abc" if method == "POST" else None)
        response = connection.getresponse()
        response.read()
        wanted.append(response.status)
    assert wanted == [200, 403, 200, 403, 200]
    connection.close()
    gateway.until(lambda: len(gateway.events(4002)) == 5)


def test_a_chunked_request_and_response_pass(gateway, sink):
    sink.reply = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"
    connection = http.client.HTTPConnection("127.0.0.1", gateway.port, timeout=10)
    connection.request(
        "POST", f"http://good.test:{sink.port}/", body=iter([b"x" * 100, b"y" * 100]), encode_chunked=True
    )
    response = connection.getresponse()
    assert (response.status, response.read()) == (200, b"abc")
    connection.close()
    gateway.until(lambda: sink.data.endswith(b"0\r\n\r\n"))
    assert b"x" * 100 in sink.data


AT = "Host: good.test:P\r\n"
POST = "POST http://good.test:P/ HTTP/1.1\r\n" + AT
HOSTILE = {
    "both framings": (POST + "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
    "two lengths": (POST + "Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello", 400),
    "odd coding": (POST + "Transfer-Encoding: xchunked\r\n\r\n", 501),
    "chunked in 1.0": ("POST http://good.test:P/ HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
    "other host": ("GET http://good.test:P/ HTTP/1.1\r\nHost: evil.test\r\n\r\n", 400),
    "other port": ("GET http://good.test:P/ HTTP/1.1\r\nHost: good.test:1\r\n\r\n", 400),
    "no host": ("GET http://good.test:P/ HTTP/1.1\r\n\r\n", 400),
    "user information": ("GET http://good.test:P@evil.test/ HTTP/1.1\r\n" + AT + "\r\n", 400),
    "origin form": ("GET / HTTP/1.1\r\n" + AT + "\r\n", 400),
    "https in clear": ("GET https://good.test:P/ HTTP/1.1\r\n" + AT + "\r\n", 400),
    "method override": (POST + "X-HTTP-Method-Override: DELETE\r\n\r\n", 400),
    "space in header": ("GET http://good.test:P/ HTTP/1.1\r\nHost : good.test:P\r\n\r\n", 400),
    "not HTTP": ("\x16\x03\x01\x02\x00\r\n\r\n", 400),
    "not a port": ("GET http://good.test:99999/ HTTP/1.1\r\nHost: good.test:99999\r\n\r\n", 400),
    "CONNECT with a body": (
        "CONNECT other.test:P HTTP/1.1\r\nHost: other.test:P\r\nContent-Length: 3\r\n\r\nabc",
        400,
    ),
    "CONNECT without a port": ("CONNECT other.test HTTP/1.1\r\nHost: other.test\r\n\r\n", 400),
    "huge header": (POST + "X: " + "a" * 100_000 + "\r\n\r\n", 431),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_what_two_parsers_could_read_differently_is_refused(gateway, sink, name):
    raw, expected = HOSTILE[name]
    assert status(gateway.send(raw.replace(":P", f":{sink.port}").encode("latin-1"))) == expected, name
    assert sink.received == 0
    lines = gateway.until(lambda: [e for e in gateway.events() if e.get("disposition_id") == 2])
    (event,) = (parse_line(json.dumps(line).encode(), Source.POLICY) for line in lines)
    assert (event.agent, event.instance, event.policy_version) == ("rogue", "rogue-1", 1)
    assert 0 < len(event.reason) <= 200
    assert gateway.client.health()["status"] == "ok"


@pytest.mark.parametrize(
    "path",
    ["/secret/x", "/a/../secret/x", "/a/%2e%2e/secret/x", "/%73ecret/x", "/a/..%2fsecret/x", "//secret/x",
     "/./secret/x", "/a;/../secret/x", "/secret%00/x", "/%c0%ae%c0%ae/secret/x",
     "/%252e%252e/secret/x", "/a\\..\\secret/x", "/%zz"],
)  # fmt: skip
def test_path_tricks_do_not_pass_a_rule_about_paths(gateway, sink, path):
    assert status(gateway.send(get(path, "good.test", sink.port))) == 403
    assert sink.received == 0


def test_a_slow_head_is_bounded_and_others_go_on(gateway, sink):
    with gateway.dial() as slow:
        slow.sendall(b"GET http://good.test/ HT")
        for _ in range(20):
            assert status(gateway.send(get("/", "good.test", sink.port))) == 200
        slow.settimeout(40)
        begun = time.monotonic()
        assert status(gateway.answer(slow)) == 408
        assert time.monotonic() - begun < 30


def test_bad_chunks_reset_the_destination(gateway, sink):
    sink.reply = b""
    with gateway.dial() as sock:
        sock.sendall(get("/", "good.test", sink.port, "Transfer-Encoding: chunked\r\n", "POST") + b"5\r\nhello\r\n")
        gateway.until(lambda: b"hello" in sink.data)
        sock.sendall(b"zz\r\n")
        gateway.until(lambda: sink.ended == ["reset"])


def test_an_answer_may_come_before_the_body_is_sent(gateway, sink):
    with gateway.dial() as sock:
        sock.sendall(get("/", "good.test", sink.port, "Content-Length: 1000000\r\n", "POST") + b"part")
        assert status(gateway.answer(sock)) == 200


def test_a_dead_destination_is_a_502(gateway, sink):
    text = gateway.policy("domain: good.test")
    gateway.client.put("test", text, author="tester", reason="any port")
    with socket.socket() as silent:  # bound and not listening: nobody else gets the port
        silent.bind(("127.0.0.1", 0))
        answer = gateway.send(get("/", "good.test", silent.getsockname()[1]))
    assert status(answer) == 502
    assert body(answer)["error"] == "upstream"


def test_expect_continue_is_answered_for_allowed_requests_only(gateway, sink):
    sink.when = b"abcd"
    with gateway.dial() as sock:
        head = get("/", "good.test", sink.port, "Content-Length: 4\r\nExpect: 100-continue\r\n", "POST")
        sock.sendall(head)
        assert sock.recv(1000).startswith(b"HTTP/1.1 100")
        sock.sendall(b"abcd")
        assert status(gateway.answer(sock)) == 200
    denied = head.replace(b"good.test", b"evil.test")
    assert status(gateway.send(denied)) == 403


def test_the_ipv6_listener_serves_too(gateway, sink):
    with socket.create_connection(("::1", gateway.port6), timeout=10) as sock:
        sock.sendall(get("/", "good.test", sink.port))
        assert status(gateway.answer(sock)) == 200
