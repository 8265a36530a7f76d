"""OpenShell's rules through a real gateway. Who calls is answered here, at the core's end of the desk."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import pytest

pytestmark = pytest.mark.slow

CURL = {"pid": 7, "program": ["/usr/bin/curl", "ab" * 32, False], "ancestors": [["/usr/bin/bash", "cd" * 32, False]]}


@dataclass
class Desk:
    ours: socket.socket
    asked: list[dict] = field(default_factory=list)
    answer: Callable[[dict], bytes | None] = lambda _question: json.dumps({"holders": [CURL]}).encode()

    def run(self) -> None:
        with contextlib.suppress(OSError):
            while packet := self.ours.recv(65536):
                question = json.loads(packet)
                self.asked.append(question)
                found = self.answer(question)
                if found is not None:
                    with contextlib.suppress(ValueError):
                        found = json.dumps({"id": question["id"]} | json.loads(found)).encode()
                    self.ours.send(found)


def rules(port: int) -> str:
    return f"""\
version: 1
network_policies:
  api:
    endpoints:
      - {{host: good.test, port: {port}, protocol: rest, enforcement: enforce, access: read-only}}
      - {{host: watch.test, port: {port}, protocol: rest, access: read-only}}
      - {{host: loop.test, port: {port}, allowed_ips: ["10.0.0.0/8"]}}
      - host: graph.test
        port: {port}
        protocol: graphql
        enforcement: enforce
        graphql_max_body_bytes: 2000
        access: read-only
      - {{host: listen.test, port: {port}, protocol: websocket, enforcement: enforce, access: read-only}}
      - {{host: talk.test, port: {port}, protocol: websocket, enforcement: enforce, access: read-write}}
    binaries: [{{path: /usr/bin/curl}}]
"""


@pytest.fixture
def near(start, sink) -> Iterator:
    names = ("good", "watch", "loop", "graph", "listen", "talk")
    gateway = start(text=rules(sink.port), resolve={f"{name}.test": "127.0.0.1" for name in names})
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        gateway.desk = Desk(ours)
        assert gateway.say({"desk": True}, [theirs.fileno()]) == {"ok": True}
        theirs.close()
        thread = threading.Thread(target=gateway.desk.run, daemon=True)
        thread.start()
        yield gateway
        with contextlib.suppress(OSError):
            ours.shutdown(socket.SHUT_RDWR)
        thread.join(10)


def send(gateway, sink, host: str, method: str = "GET", body: bytes = b"", extra: str = "") -> tuple[int, dict]:
    place = f"{host}:{sink.port}"
    length = f"Content-Length: {len(body)}\r\n" if body else ""
    head = f"{method} http://{place}/x HTTP/1.1\r\nHost: {place}\r\n{length}{extra}\r\n"
    answer = gateway.send(head.encode() + body)
    text = answer.partition(b"\r\n\r\n")[2]
    return int(answer.split(b" ", 2)[1]), json.loads(text) if text.startswith(b"{") else {}


def test_a_named_program_may_and_is_asked_for_once_a_connection(near, sink):
    with near.dial() as sock:
        for _ in range(3):
            sock.sendall(f"GET http://good.test:{sink.port}/x HTTP/1.1\r\nHost: good.test:{sink.port}\r\n\r\n".encode())
            assert near.answer(sock).startswith(b"HTTP/1.1 200")
        here = sock.getsockname()
    (question,) = near.desk.asked
    assert (question["instance"], tuple(question["local"])) == ("rogue-1", here)
    assert question["remote"] == ["127.0.0.1", near.port]


def test_what_no_rule_names_is_not_asked_for(near, sink):
    assert send(near, sink, "nobody.test")[0] == 403
    assert near.desk.asked == []


@pytest.mark.parametrize(
    "answer",
    [b'{"error": "the connection is gone"}', b'{"holders": []}', b'{"holders": 1}', b'{"holders": [{}]}', b"{}",
     json.dumps({"holders": [CURL, CURL | {"program": ["/usr/bin/nc", "", False]}]}
                | {}).replace("/usr/bin/bash", "/usr/bin/sh").encode(),
     json.dumps({"holders": [CURL | {"program": ["/usr/bin/curl", "", True]}]}).encode()],
    ids=["unknown", "none", "no list", "empty", "nothing", "another too", "changed"],
)  # fmt: skip
def test_any_other_answer_denies(near, sink, answer):
    near.desk.answer = lambda _question: answer
    status, said = send(near, sink, "good.test")
    assert (status, said["level"]) == (403, "binary")
    assert sink.received == 0


def test_a_core_that_is_gone_denies(near, sink):
    near.desk.answer = lambda _question: None
    near.desk.ours.shutdown(socket.SHUT_RDWR)
    status, said = send(near, sink, "good.test")
    assert status == 403
    assert "cannot be told" in said["reason"]


def test_method_is_a_level_and_audit_only_watches(near, sink):
    assert send(near, sink, "good.test", "DELETE")[1]["level"] == "method"
    assert sink.received == 0
    assert send(near, sink, "watch.test", "DELETE")[0] == 200
    near.until(lambda: [e for e in near.events(4002) if "would be denied" in str(e) and e["disposition_id"] == 1])


def test_allowed_ips_are_kept_to(near, sink):
    status, said = send(near, sink, "loop.test")
    assert status == 403
    assert "allowed_ips" in said["reason"]
    assert sink.received == 0


def test_a_body_is_read_before_it_leaves_and_leaves_as_it_was(near, sink):
    json_type = "Content-Type: application/json; charset=utf-8\r\n"
    body = b'{"query": "{ user }"}'
    assert send(near, sink, "graph.test", "POST", body, json_type)[0] == 200
    near.until(lambda: sink.data.endswith(body))
    before = sink.received
    for bad, extra in (
        (b'{"query": "mutation { x }"}', json_type),
        (body, ""),
        (body, "Content-Type: text/plain\r\n"),
        (body, json_type + "Content-Encoding: gzip\r\n"),
        (b'{"query": "{ a }"}' + b" " * 3000, json_type),
    ):
        assert send(near, sink, "graph.test", "POST", bad, extra)[1]["level"] == "content", (bad, extra)
    assert sink.received == before


def upgrade(gateway, sink, host: str) -> socket.socket:
    sink.reply = (
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: x\r\n\r\n\x81\x05hello"
    )
    sock = gateway.dial()
    place = f"{host}:{sink.port}"
    sock.sendall(
        f"GET http://{place}/ws HTTP/1.1\r\nHost: {place}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Key: k\r\nSec-WebSocket-Version: 13\r\n"
        "Sec-WebSocket-Extensions: permessage-deflate\r\n\r\n".encode()
    )
    return sock


def frame(opcode: int, payload: bytes) -> bytes:
    return bytes((0x80 | opcode, 0x80 | len(payload))) + b"\0\0\0\0" + payload


def read(sock: socket.socket, until: bytes) -> bytes:
    data = b""
    while until not in data and (piece := sock.recv(65536)):
        data += piece
    return data


def test_a_websocket_that_may_speak(near, sink):
    with upgrade(near, sink, "talk.test") as sock:
        data = read(sock, b"hello")
        assert data.startswith(b"HTTP/1.1 101")
        head = sink.data.lower()
        assert b"upgrade: websocket" in head
        assert b"permessage-deflate" not in head
        sock.sendall(frame(1, b"spoken") + frame(9, b""))
        near.until(lambda: b"spoken" in sink.data)


@pytest.mark.parametrize("first", [frame(1, b"spoken"), frame(2, b"spoken"), b"\x81\x06spoken", b"\xc1\x80\0\0\0\0"])
def test_a_websocket_that_may_only_listen(near, sink, first):
    with upgrade(near, sink, "listen.test") as sock:
        assert b"hello" in read(sock, b"hello")
        sock.sendall(frame(9, b"ping"))
        near.until(lambda: b"ping" in sink.data)
        with contextlib.suppress(OSError):
            sock.sendall(first)
            assert read(sock, b"never") == b""
    near.until(lambda: [e for e in near.events() if e.get("disposition_id") == 2])
    assert b"spoken" not in sink.data


def test_no_other_rule_lets_a_request_become_something_else(near, sink):
    with upgrade(near, sink, "good.test") as sock:
        assert read(sock, b"\r\n\r\n").startswith(b"HTTP/1.1 502")
    assert b"upgrade" not in sink.data.lower()
