"""Noise, floods and half-dead peers: the gateway stays up, stays bounded, and lets nothing through."""

from __future__ import annotations

import contextlib
import random
import socket
import struct
import threading
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

VALID = (
    b"GET http://good.test:80/a?b HTTP/1.1\r\nHost: good.test:80\r\nConnection: keep-alive\r\n\r\n"
    b"POST http://good.test:80/ HTTP/1.1\r\nHost: good.test:80\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"3\r\nabc\r\n0\r\n\r\n"
    b"CONNECT other.test:443 HTTP/1.1\r\nHost: other.test:443\r\n\r\n\x16\x03\x01"
)


NOISE = (b"", b"\r\n", b"\n", b"\0", b" ", b":", b"\xff", b"Content-Length: 99\r\n", b"0" * 9, b"http://", b"%2e")


def damaged(rng: random.Random) -> bytes:
    data = bytearray(VALID[rng.randrange(len(VALID)) // 2 :] if rng.random() < 0.3 else VALID)
    for _ in range(rng.randrange(1, 8)):
        at = rng.randrange(len(data) + 1)
        piece = rng.choice(NOISE)
        data[at : at + rng.randrange(0, 4)] = piece
    return bytes(data)


def test_noise_does_not_disturb_it(gateway, sink, capfd):
    rng = random.Random(7)
    for _ in range(300):
        with gateway.dial() as sock, contextlib.suppress(OSError):
            sock.sendall(damaged(rng))
            if rng.random() < 0.5:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    assert gateway.client.health()["status"] == "ok"
    gateway.until(lambda: metric(gateway, "clawback_gateway_connections") == 0, seconds=20)
    assert sink.received == 0
    shown = capfd.readouterr()
    assert "Traceback" not in shown.out + shown.err
    assert "gateway's own" not in shown.out + shown.err


def metric(gateway, name: str) -> float:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(str(gateway.client.path))
        sock.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
        text = sock.makefile("rb").read().decode()
    return next(float(line.split()[-1]) for line in text.splitlines() if line.startswith(name + " "))


def test_one_agents_idle_connections_do_not_keep_another_out(gateway, sink):
    port, _ = gateway.attach("second", "second-1", "test")
    idle = [gateway.dial() for _ in range(300)]
    try:
        gateway.until(lambda: metric(gateway, "clawback_gateway_connections") >= 256)
        with socket.create_connection(("127.0.0.1", port), timeout=10) as sock:
            sock.sendall(f"GET http://good.test:{sink.port}/ HTTP/1.1\r\nHost: good.test:{sink.port}\r\n\r\n".encode())
            assert gateway.answer(sock).startswith(b"HTTP/1.1 200")
        assert metric(gateway, "clawback_gateway_connections") <= 258
    finally:
        for sock in idle:
            sock.close()
    gateway.until(lambda: metric(gateway, "clawback_gateway_connections") == 0)
    assert descriptors(gateway) < 64


def descriptors(gateway) -> int:
    return len(list(Path(f"/proc/{gateway.process.pid}/fd").iterdir()))


def test_nothing_is_left_open_after_many_connections(gateway, sink):
    def use() -> None:
        for _ in range(20):
            with gateway.dial() as sock:
                sock.sendall(
                    f"CONNECT other.test:{sink.port} HTTP/1.1\r\nHost: other.test:{sink.port}\r\n\r\n".encode()
                )
                sock.recv(100)
                sock.sendall(b"x" * 1000)

    before = descriptors(gateway)
    threads = [threading.Thread(target=use) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    gateway.until(lambda: descriptors(gateway) <= before)
    gateway.until(lambda: len([e for e in gateway.events(4001) if e["activity_id"] == 2]) == 100)


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        (b"nonsense\r\n\r\n", b"502"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: identity\r\n\r\nhello", b"502"),
        (b"HTTP/1.1 200 OK\r\nX: " + b"a" * 100_000 + b"\r\n\r\n", b"502"),
        (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 204 No Content\r\nConnection: X-Drop\r\nX-Drop: 1\r\n\r\n", b"204"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\nHTTP/1.1 200 OK\r\nX-Injected: 1\r\n\r\n", b"200"),
    ],
    ids=["no HTTP", "odd coding", "huge header", "informational", "second response"],
)
def test_a_hostile_destination_cannot_speak_out_of_turn(gateway, sink, reply, expected):
    sink.reply = reply
    with gateway.dial() as sock:
        raw = f"GET http://good.test:{sink.port}/ HTTP/1.1\r\nHost: good.test:{sink.port}\r\n\r\n".encode()
        sock.sendall(raw)
        data = sock.recv(65536)
        assert data.split(b" ", 2)[1] == expected, data[:200]
        assert b"x-drop" not in data.lower()
        sink.reply = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi"
        if expected != b"502":
            sock.sendall(raw)
            assert b"x-injected" not in gateway.answer(sock).lower()


def test_a_destination_that_resets_a_tunnel_resets_the_agent(gateway):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        gateway.client.put("test", gateway.policy("domain: other.test"), author="tester", reason="any port")
        with gateway.dial() as sock:
            sock.sendall(f"CONNECT other.test:{port} HTTP/1.1\r\nHost: other.test:{port}\r\n\r\n".encode())
            conn, _ = server.accept()
            assert b" 200 " in sock.recv(1000)
            conn.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            conn.close()
            with pytest.raises(ConnectionResetError):
                sock.recv(100)
