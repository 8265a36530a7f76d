"""Orders that look at requests, in TLS too: tools, connectors, inference. What cannot be looked at does not pass."""

from __future__ import annotations

import contextlib
import http.client
import itertools
import json
import socket
import ssl
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from clawback.enforcement.policy.order_calls import INSPECTABLE
from clawback.model import Attempt, EgressOrder, OrderKind, Scope, ScopeKind, Subject

pytestmark = pytest.mark.slow

ROGUE = Scope(ScopeKind.AGENT, "rogue")
NOBODY = Subject(agent="rogue", tenant="", team="", tags=())
NUMBERS = itertools.count(1)
CARD = b'{"messages": [{"content": "pay with 4111 1111 1111 1111"}]}'
PLAIN = b'{"messages": [{"content": "what is a card?"}]}'


def order(kind: OrderKind, **fields: Any) -> EgressOrder:
    values = {"id": f"INC-2.{next(NUMBERS)}", "scope": ROGUE, "reason": "exfiltration", "by": "soc", **fields}
    return EgressOrder(kind=kind, **values)


def call(tool: str) -> bytes:
    return json.dumps({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": tool}}).encode()


@pytest.fixture
def far(serve: Any) -> Any:
    return serve("mcp.test", "other.test")


@pytest.fixture
def near(start: Any, roots: Any, far: Any) -> Any:
    """The policy allows both hosts without looking: their tunnels are blind, but for orders."""
    return start(
        text=f"""\
networkPolicy:
  name: test
  egress:
    allow:
      - {{name: mcp, domain: mcp.test, ports: [{far.port}]}}
      - {{name: other, domain: other.test, ports: [{far.port}]}}
""",
        resolve={"mcp.test": "127.0.0.1", "other.test": "127.0.0.1"},
        upstream_ca=str(roots.file),
        inference=[
            {"host": "mcp.test", "kind": "cloud", "path": "/v1"},
            {"host": "other.test", "kind": "local"},
        ],
        queue_seconds=1.5,
    )


def both(near: Any, roots: Any) -> ssl.SSLContext:
    """Trusts the gateway and the world: whichever is at the other end."""
    context = ssl.create_default_context(cafile=near.state / "gateway" / "bundle.pem")
    context.load_verify_locations(roots.file)
    return context


def ask(
    near: Any, roots: Any, far: Any, method: str, path: str, body: bytes = b"", *, host: str = "mcp.test", **more: str
) -> tuple[int, dict[str, Any]]:
    """0 where the tunnel was refused."""
    connection = http.client.HTTPSConnection("127.0.0.1", near.port, context=both(near, roots), timeout=15)
    connection.set_tunnel(host, far.port)
    try:
        headers = {name.replace("_", "-"): value for name, value in more.items()}
        connection.request(method, path, body=body or None, headers={"content-type": "application/json", **headers})
        answer = connection.getresponse()
        text = answer.read()
        return answer.status, json.loads(text) if text[:1] == b"{" else {}
    except OSError as error:
        if "403" not in str(error):
            raise
        return 0, {}
    finally:
        connection.close()


def lift(near: Any, one: EgressOrder) -> None:
    assert near.client.lift(one.id, reason="over", by="soc")


def blocked(gateway: Any, text: str, stream: str = "policy") -> list[dict[str, Any]]:
    path = gateway.state / "telemetry" / f"{stream}.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    return [event for event in map(json.loads, lines) if event.get("disposition_id") == 2 and text in str(event)]


def test_a_denied_tool_is_refused_inside_tls_and_the_others_go_on(near, roots, far):
    assert ask(near, roots, far, "POST", "/mcp", call("delete_user"))[0] == 200
    one = order(OrderKind.TOOL, tool="delete_*", host="mcp.test")
    near.client.place(one)
    status, said = ask(near, roots, far, "POST", "/mcp", call("delete_user"))
    assert (status, said["rule"], said["level"]) == (403, one.rule, "order")
    assert ask(near, roots, far, "POST", "/mcp", call("read_user"))[0] == 200
    assert ask(near, roots, far, "POST", "/mcp", b"[" + call("read") + b"," + call("delete_x") + b"]")[0] == 403
    assert ask(near, roots, far, "POST", "/mcp", call("x"), content_encoding="gzip")[0] == 403
    assert ask(near, roots, far, "PUT", "/mcp", call("delete_user"), content_type="text/plain")[0] == 403
    assert ask(near, roots, far, "POST", "/mcp", b" " * (INSPECTABLE + 1))[0] == 403
    assert ask(near, roots, far, "GET", "/mcp")[0] == 200
    assert ask(near, roots, far, "POST", "/mcp", call("delete_user"), host="other.test")[0] == 200
    lift(near, one)
    assert ask(near, roots, far, "POST", "/mcp", call("delete_user"))[0] == 200
    assert [body for _, _, _, body in far.requests if b"delete" in body] == [call("delete_user")] * 3
    near.until(lambda: blocked(near, one.rule))


def test_a_tool_wherever_it_is_called_and_in_plain_http_too(near, roots, far, sink):
    near.client.place(order(OrderKind.TOOL, tool="delete_user"))
    assert ask(near, roots, far, "POST", "/any", call("delete_user"), host="other.test")[0] == 403
    near.client.put(
        "test", near.policy(f"domain: other.test, ports: [{sink.port}]"), author="t", reason="plain, to another port"
    )
    head = f"POST http://other.test:{sink.port}/ HTTP/1.1\r\nHost: other.test:{sink.port}\r\n"
    body = call("delete_user")
    answer = near.send(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
    assert answer.startswith(b"HTTP/1.1 403")
    chunked = f"Transfer-Encoding: chunked\r\n\r\n{len(body):x}\r\n".encode() + body + b"\r\n0\r\n\r\n"
    assert near.send(head.encode() + chunked).startswith(b"HTTP/1.1 403")
    assert sink.received == 0


def test_a_websocket_carries_what_no_order_sees(near, roots, far):
    near.client.place(order(OrderKind.TOOL, tool="delete_user", host="mcp.test"))
    status, said = ask(near, roots, far, "GET", "/mcp", upgrade="websocket", connection="upgrade")
    assert (status, said["level"]) == (403, "order")
    assert far.requests == []


def test_a_blind_tunnel_ends_when_an_order_has_to_look(near, roots, far, sink):
    sink.reply = b""
    with near.dial() as sock:
        sock.sendall(f"CONNECT mcp.test:{far.port} HTTP/1.1\r\nHost: mcp.test:{far.port}\r\n\r\n".encode())
        assert sock.recv(1000).startswith(b"HTTP/1.1 200")
        with both(near, roots).wrap_socket(sock, server_hostname="mcp.test") as tls:
            tls.sendall(b"GET /before HTTP/1.1\r\nHost: mcp.test\r\n\r\n")
            assert tls.recv(1000).startswith(b"HTTP/1.1 200")
            assert near.client.place(order(OrderKind.TOOL, tool="x", host="mcp.test"))[1] == 1
            with contextlib.suppress(OSError):  # a reset; or an end without TLS's own
                list(iter(lambda: tls.recv(100), b""))
            with contextlib.suppress(OSError):
                tls.sendall(b"GET /after HTTP/1.1\r\nHost: mcp.test\r\n\r\n")
    near.until(lambda: blocked(near, "what was open is ended by an order"))
    assert [path for _, path, *_ in far.requests] == ["/before"]


def test_a_tunnel_that_is_no_tls_is_refused_in_the_orders_name(near, far):
    one = order(OrderKind.TOOL, tool="x")
    near.client.place(one)
    with near.dial() as sock:
        sock.sendall(f"CONNECT mcp.test:{far.port} HTTP/1.1\r\nHost: mcp.test:{far.port}\r\n\r\n".encode())
        assert sock.recv(1000).startswith(b"HTTP/1.1 200")
        sock.sendall(b"SSH-2.0-OpenSSH_9.9\r\n")
        with contextlib.suppress(ConnectionResetError):
            assert sock.recv(1000) == b""
    near.until(lambda: [event for event in blocked(near, "looks inside this tunnel") if one.rule in str(event)])
    assert far.requests == []


def test_where_the_policy_forbids_looking_the_order_refuses_the_tunnel(start, roots, far):
    gateway = start(
        text=f"""\
version: 1
network_policies:
  api:
    endpoints: [{{host: mcp.test, port: {far.port}, tls: skip}}]
    binaries: [{{path: "/**"}}]
""",
        resolve={"mcp.test": "127.0.0.1"},
        upstream_ca=str(roots.file),
    )
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    caller = {"pid": 7, "program": ["/usr/bin/curl", "ab" * 32, False], "ancestors": []}

    def desk() -> None:
        with contextlib.suppress(OSError, ValueError):
            while packet := ours.recv(65536):
                ours.send(json.dumps({"id": json.loads(packet)["id"], "holders": [caller], "hosts": []}).encode())

    with ours:
        with theirs:
            assert gateway.say({"desk": True}, [theirs.fileno()]) == {"ok": True}
        thread = threading.Thread(target=desk, daemon=True)
        thread.start()
        line = f"CONNECT mcp.test:{far.port} HTTP/1.1\r\nHost: mcp.test:{far.port}\r\n\r\n".encode()
        with gateway.dial() as sock:
            sock.sendall(line)
            assert sock.recv(1000).startswith(b"HTTP/1.1 200")
            one = order(OrderKind.CONNECTOR, host="mcp.test", path="/mcp")
            assert gateway.client.place(one)[1] == 1, "the blind tunnel ends"
        answer = gateway.send(line)
        assert answer.startswith(b"HTTP/1.1 403")
        assert one.rule.encode() in answer
        assert b"tls: skip" in answer
        ours.shutdown(socket.SHUT_RDWR)
        thread.join(10)


def test_a_connector_below_a_path_and_a_whole_one(near, roots, far):
    part = order(OrderKind.CONNECTOR, host="mcp.test", path="/mcp")
    near.client.place(part)
    assert ask(near, roots, far, "GET", "/mcp/x")[1]["rule"] == part.rule
    assert ask(near, roots, far, "GET", "/%6dcp")[0] == 403
    assert ask(near, roots, far, "GET", "/a/../mcp")[0] == 403
    assert ask(near, roots, far, "GET", "/else")[0] == 200
    whole = order(OrderKind.CONNECTOR, host="mcp.test")
    near.client.place(whole)
    assert ask(near, roots, far, "GET", "/else")[0] == 0
    assert ask(near, roots, far, "GET", "/else", host="other.test")[0] == 200


def test_an_http_api_as_a_tool(near, roots, far):
    one = order(OrderKind.TOOL, method="DELETE", path="/v1/users/*", host="mcp.test", port=far.port)
    near.client.place(one)
    assert ask(near, roots, far, "DELETE", "/v1/users/7")[1]["rule"] == one.rule
    assert ask(near, roots, far, "GET", "/v1/users/7")[0] == 200
    assert [method for method, *_ in far.requests] == ["GET"]


# -- inference -------------------------------------------------------------------------------------------------------


def test_cut_and_local_only(near, roots, far):
    cut = order(OrderKind.INFERENCE, mode="cut")
    near.client.place(cut)
    assert ask(near, roots, far, "POST", "/v1/chat", PLAIN)[1]["rule"] == cut.rule
    assert ask(near, roots, far, "GET", "/docs")[0] == 200
    assert ask(near, roots, far, "POST", "/v1/chat", PLAIN, host="other.test")[0] == 0
    lift(near, cut)
    local = order(OrderKind.INFERENCE, mode="local-only")
    near.client.place(local)
    assert ask(near, roots, far, "POST", "/v1/chat", PLAIN)[1]["rule"] == local.rule
    assert ask(near, roots, far, "POST", "/v1/chat", PLAIN, host="other.test")[0] == 200
    event = near.until(lambda: blocked(near, local.rule, "routing"))[0]
    assert (event["class_uid"], "cloud" in str(event)) == (6003, True)
    assert {endpoint.host for endpoint in near.client.inference()} == {"mcp.test", "other.test"}


def test_what_is_sensitive_waits_and_is_refused_and_never_leaves(near, roots, far):
    one = order(OrderKind.INFERENCE, mode="queue-sensitive")
    near.client.place(one)
    assert ask(near, roots, far, "POST", "/v1/chat", PLAIN)[0] == 200
    status, said = ask(near, roots, far, "POST", "/v1/chat", CARD)
    assert (status, said["rule"]) == (403, one.rule)
    assert said["reason"] == "payment-card in it: held for 1.5 s, and the order still stands"
    assert ask(near, roots, far, "POST", "/v1/chat", b"\xff\xfe")[0] == 403
    assert ask(near, roots, far, "POST", "/v1/chat", CARD, host="other.test")[0] == 200, "local models may have it"
    assert ask(near, roots, far, "POST", "/v1/chat", b'"' + b"x y " * (INSPECTABLE // 4) + b'"')[0] == 403
    assert [body for _, path, _, body in far.requests] == [PLAIN, CARD]
    held = near.until(lambda: blocked(near, f"held by {one.rule}", "routing"))[0]
    assert "payment-card" in str(held)
    kept = str(near.events()) + str(blocked(near, "", "routing"))
    assert not [form for form in ("4111 1111", "41111111") if form in kept]
    assert near.client.held() == {}


def test_what_is_held_goes_on_when_the_order_is_lifted(near, roots, far):
    one = order(OrderKind.INFERENCE, mode="queue-sensitive")
    near.client.place(one)
    with ThreadPoolExecutor(1) as other:
        asked = other.submit(ask, near, roots, far, "POST", "/v1/chat", CARD)
        near.until(lambda: near.client.held() == {one.id: 1})
        assert far.requests == []
        lift(near, one)
        assert asked.result(15)[0] == 200
    assert [body for *_, body in far.requests] == [CARD]
    assert near.client.held() == {}


def test_what_is_held_is_refused_by_an_order_that_comes_meanwhile(near, roots, far):
    near.client.place(order(OrderKind.INFERENCE, mode="queue-sensitive"))
    with ThreadPoolExecutor(1) as other:
        asked = other.submit(ask, near, roots, far, "POST", "/v1/chat", CARD)
        near.until(near.client.held)
        cut = order(OrderKind.INFERENCE, mode="cut")
        near.client.place(cut)
        assert asked.result(15)[1]["rule"] == cut.rule
    assert far.requests == []


def test_the_agent_is_told_that_it_is_held_and_its_leaving_is_noticed(near, far):
    one = order(OrderKind.INFERENCE, mode="queue-sensitive")
    near.client.place(one)
    head = (
        f"POST http://mcp.test:{far.port}/v1/x HTTP/1.1\r\nHost: mcp.test:{far.port}\r\nContent-Length: {len(CARD)}\r\n"
    )
    with near.dial() as sock:
        sock.sendall(f"{head}\r\n".encode() + CARD)
        answer = sock.recv(1000)
        assert answer.startswith(b"HTTP/1.1 100 ")
        assert f'proxy-status: clawback; error=http_request_held; details="order {one.rule}"'.encode() in answer
        assert near.client.held() == {one.id: 1}
    near.until(lambda: near.client.held() == {})
    assert far.requests == []


def test_decide_says_what_would_become_of_a_body(near, far):
    one = order(OrderKind.INFERENCE, mode="queue-sensitive")
    tool = order(OrderKind.TOOL, tool="delete_user", host="mcp.test")
    for each in (one, tool):
        near.client.place(each)

    def decide(body: bytes) -> Any:
        target = f"POST http://mcp.test:{far.port}/v1/x {body.decode()}"
        return near.client.decide("test", Attempt(kind="http", target=target), subject=NOBODY)

    assert (decide(CARD).allowed, decide(CARD).orders) == (False, (one.id,))
    assert (decide(call("delete_user")).allowed, decide(call("delete_user")).orders) == (False, (tool.id,))
    assert decide(PLAIN).allowed
    connect = near.client.decide("test", Attempt(kind="connect", target=f"mcp.test:{far.port}"), subject=NOBODY)
    assert (connect.allowed, connect.inspect) == (True, True)
