"""TLS that ends in the gateway: rules about requests hold inside it, and whoever does not take it gets nowhere."""

from __future__ import annotations

import contextlib
import http.client
import os
import ssl
import subprocess
from collections.abc import Iterator

import pytest

pytestmark = pytest.mark.slow


@pytest.fixture
def far(serve):
    return serve("api.test")


@pytest.fixture
def near(start, roots, far):
    """Looks into tunnels to `api.test`, and not into those to `blind.test`."""
    return start(
        text=start_policy(far.port),
        resolve={"api.test": "127.0.0.1", "blind.test": "127.0.0.1", "wrong.test": "127.0.0.1"},
        upstream_ca=str(roots.file),
    )


def start_policy(port: int) -> str:
    return f"""\
networkPolicy:
  name: test
  egress:
    allow:
      - {{name: api, domain: api.test, ports: [{port}], methods: [GET, POST], paths: ["/v1/**"]}}
      - {{name: blind, domain: blind.test, ports: [{port}]}}
      - {{name: wrong, domain: wrong.test, ports: [{port}], methods: [GET]}}
    deny:
      - {{name: secret, domain: api.test, paths: ["/v1/secret/**"]}}
"""


def trusting(gateway) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=gateway.state / "gateway" / "bundle.pem")


@contextlib.contextmanager
def tunnel(gateway, host: str, port: int, context: ssl.SSLContext | None = None, name: str = "") -> Iterator:
    with gateway.dial() as sock:
        sock.sendall(f"CONNECT {host}:{port} HTTP/1.1\r\nHost: {host}:{port}\r\n\r\n".encode())
        assert sock.recv(1000).startswith(b"HTTP/1.1 200")
        with (context or trusting(gateway)).wrap_socket(sock, server_hostname=name or host) as tls:
            yield tls


def ask(gateway, port: int, method: str, path: str, *, host: str = "api.test", **headers: str) -> tuple[int, bytes]:
    connection = http.client.HTTPSConnection("127.0.0.1", gateway.port, context=trusting(gateway), timeout=10)
    connection.set_tunnel(host, port)
    try:
        connection.request(method, path, body=b"body" if method == "POST" else None, headers=headers)
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def blocked(gateway, text: str) -> list[dict]:
    return [event for event in gateway.events() if event.get("disposition_id") == 2 and text in str(event)]


def test_rules_about_requests_hold_inside_tls(near, far):
    answers = [
        ask(near, far.port, method, path)[0]
        for method, path in (
            ("GET", "/v1/a?b=c"),
            ("POST", "/v1/a"),
            ("DELETE", "/v1/a"),
            ("GET", "/v2/a"),
            ("GET", "/v1/secret/a"),
            ("GET", "/v1/%2e%2e/v2"),
        )
    ]
    assert answers == [200, 200, 403, 403, 403, 403]
    assert [(method, path, body) for method, path, _, body in far.requests] == [
        ("GET", "/v1/a?b=c", b""),
        ("POST", "/v1/a", b"body"),
    ]
    assert far.requests[0][2]["host"] == f"api.test:{far.port}"
    seen = near.until(lambda: [e for e in near.events(4002) if e["disposition_id"] == 1])
    assert len(seen) == 2


def test_many_requests_of_one_tunnel_are_each_decided(near, far):
    connection = http.client.HTTPSConnection("127.0.0.1", near.port, context=trusting(near), timeout=10)
    connection.set_tunnel("api.test", far.port)
    got = []
    for path in ("/v1/1", "/no", "/v1/2"):
        connection.request("GET", path)
        answer = connection.getresponse()
        answer.read()
        got.append(answer.status)
    connection.close()
    assert got == [200, 403, 200]


def test_a_destination_is_who_it_says_or_gets_nothing(near, far):
    status, body = ask(near, far.port, "GET", "/v1", host="wrong.test")
    assert status == 502
    assert b"Hostname mismatch" in body
    assert far.requests == []


def test_a_destination_with_an_unknown_authority_gets_nothing(start, far):
    gateway = start(text=start_policy(far.port), resolve={"api.test": "127.0.0.1"})
    status, body = ask(gateway, far.port, "GET", "/v1/a")
    assert status == 502
    assert b"unable to get local issuer certificate" in body
    assert far.requests == []


def test_an_agent_that_does_not_take_our_certificate_fails_and_is_reported(near, far, roots):
    with (
        pytest.raises(ssl.SSLCertVerificationError),
        tunnel(near, "api.test", far.port, ssl.create_default_context(cafile=roots.file)),
    ):
        pass
    event = near.until(lambda: blocked(near, "does not take the gateway's TLS"))[0]
    assert event["severity_id"] == 3
    assert far.requests == []


@pytest.mark.parametrize("first", [b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\x00\x05hello", b"SSH-2.0-x\r\n"])
def test_what_is_not_tls_does_not_pass_where_requests_must_be_seen(near, far, first):
    with near.dial() as sock:
        sock.sendall(f"CONNECT api.test:{far.port} HTTP/1.1\r\nHost: api.test:{far.port}\r\n\r\n".encode() + first)
        with contextlib.suppress(ConnectionResetError):
            while sock.recv(1000):
                pass
    near.until(lambda: blocked(near, "looks inside this tunnel"))
    assert far.requests == []


@pytest.mark.parametrize(("host", "name"), [("api.test", "blind.test"), ("blind.test", "api.test")])
def test_tls_names_the_host_that_the_tunnel_is_for(near, far, host, name):
    with pytest.raises((ssl.SSLError, ConnectionResetError)), tunnel(near, host, far.port, name=name):
        pass
    near.until(lambda: blocked(near, f"TLS names '{name}'"))
    assert far.requests == []


def test_a_host_header_inside_names_it_too(near, far):
    status, body = ask(near, far.port, "GET", "/v1/a", Host="blind.test")
    assert status == 400
    assert b"differ" in body
    assert far.requests == []


def test_a_tunnel_without_such_rules_stays_closed_to_the_gateway(near, far, roots):
    context = ssl.create_default_context(cafile=roots.file)
    context.check_hostname = False
    with tunnel(near, "blind.test", far.port, context) as tls:
        tls.sendall(b"GET /anything HTTP/1.1\r\nHost: blind.test\r\n\r\n")
        assert tls.recv(1000).startswith(b"HTTP/1.1 200")
        assert ("commonName", "the world's roots") in [pair for part in tls.getpeercert()["issuer"] for pair in part]


def test_http_2_is_not_spoken(near, far):
    context = trusting(near)
    context.set_alpn_protocols(["h2"])
    with tunnel(near, "api.test", far.port, context) as tls:
        assert tls.selected_alpn_protocol() is None
        tls.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
        assert tls.recv(1000).startswith((b"HTTP/1.1 400", b"HTTP/1.1 505"))
    assert far.requests == []


def test_a_cut_agent_loses_requests_inside_tls(near, far):
    with tunnel(near, "api.test", far.port) as tls:
        near.client.cut("rogue", reason="test")
        with contextlib.suppress(ConnectionResetError, ssl.SSLError):
            assert tls.recv(100) == b""
    near.until(lambda: near.client.health()["cut"])
    with near.dial() as sock:
        sock.sendall(f"CONNECT api.test:{far.port} HTTP/1.1\r\nHost: api.test:{far.port}\r\n\r\n".encode())
        assert sock.recv(1000).startswith(b"HTTP/1.1 403")


def test_the_key_is_the_gateways_alone_and_outlives_it(near, start, far, roots):
    folder = near.state / "gateway"
    assert (folder / "ca.key").stat().st_mode & 0o777 == 0o600
    if os.geteuid() == 0:
        assert (folder / "ca.key").stat().st_uid == 1_899_999
        assert (folder / "bundle.pem").stat().st_uid == 0
    before = (folder / "ca.pem").read_bytes()
    near.stop()
    again = start(resolve={"api.test": "127.0.0.1"}, upstream_ca=str(roots.file))
    assert (folder / "ca.pem").read_bytes() == before
    assert ask(again, far.port, "GET", "/v1/a")[0] == 200


def test_a_handshake_that_never_ends_does_not_keep_others_out(near, far):
    with contextlib.ExitStack() as stack:
        for _ in range(20):
            sock = stack.enter_context(near.dial())
            sock.sendall(f"CONNECT api.test:{far.port} HTTP/1.1\r\nHost: api.test:{far.port}\r\n\r\n\x16\x03".encode())
            assert sock.recv(1000).startswith(b"HTTP/1.1 200")
        assert ask(near, far.port, "GET", "/v1/a")[0] == 200


def test_the_system_curl_takes_it(near, far):
    done = subprocess.run(
        ["curl", "-sS", "--proxy", f"http://127.0.0.1:{near.port}", f"https://api.test:{far.port}/v1/curl"],
        env={"PATH": os.environ["PATH"], "CURL_CA_BUNDLE": str(near.state / "gateway" / "bundle.pem")},
        capture_output=True, text=True, timeout=20, check=False,
    )  # fmt: skip
    assert (done.stdout, done.stderr) == ("hi", "")
    assert far.requests[0][:2] == ("GET", "/v1/curl")
