"""Tunnels: who gets one, and that an aborted one stops at its destination at once."""

from __future__ import annotations

import socket
import struct
import threading

import pytest

pytestmark = pytest.mark.slow


def connect(gateway, host: str, port: int) -> tuple[socket.socket, int]:
    sock = gateway.dial()
    sock.sendall(f"CONNECT {host}:{port} HTTP/1.1\r\nHost: {host}:{port}\r\n\r\n".encode())
    data = b""
    while b"\r\n\r\n" not in data:
        piece = sock.recv(4096)
        if not piece:
            break
        data += piece
    return sock, int(data.split(b" ", 2)[1])


def abort(sock: socket.socket) -> None:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


def kinds(gateway) -> dict[int, list[dict]]:
    found: dict[int, list[dict]] = {}
    for event in gateway.events(4001):
        found.setdefault(event["activity_id"], []).append(event)
    return found


def test_a_tunnel_carries_both_ways_and_both_ends(gateway, sink):
    sink.reply = b"answer"
    sock, status = connect(gateway, "other.test", sink.port)
    assert status == 200
    with sock:
        sock.sendall(b"question\r\n\r\n")
        assert sock.recv(100) == b"answer"
        sock.shutdown(socket.SHUT_WR)
        assert sock.recv(100) == b""
    gateway.until(lambda: sink.ended == ["end"])
    seen = gateway.until(lambda: kinds(gateway) if 2 in kinds(gateway) else None)
    assert len(seen[1]) == 1
    assert len(seen[2]) == 1


@pytest.mark.parametrize(
    ("host", "why"),
    [("evil.test", "no rule"), ("127.0.0.1", "no rule"), ("2130706433", "no rule"),
     ("0x7f.1", "no rule"), ("[::1]", "no rule"), ("[::ffff:127.0.0.1]", "no rule"), ("rebound.test", "private")],
)  # fmt: skip
def test_no_tunnel_where_the_policy_or_the_address_forbids(gateway, sink, host, why):
    raw = f"CONNECT {host}:{sink.port} HTTP/1.1\r\nHost: {host}:{sink.port}\r\n\r\n"
    answer = gateway.send(raw.encode())
    assert answer.startswith(b"HTTP/1.1 403"), answer
    assert why.encode() in answer
    assert sink.received == 0
    gateway.until(lambda: kinds(gateway).get(5))


def test_a_name_that_leads_to_the_host_is_refused_unless_allowed(start, sink):
    gateway = start(
        text=start_policy(sink), allow_private=[], resolve={"inside.test": "127.0.0.1", "meta.test": "169.254.169.254"}
    )
    for host in ("inside.test", "meta.test", "localhost"):
        answer = gateway.send(f"CONNECT {host}:{sink.port} HTTP/1.1\r\nHost: {host}:{sink.port}\r\n\r\n".encode())
        assert answer.startswith(b"HTTP/1.1 403"), answer
        assert b"address refused" in answer
    assert sink.received == 0


def start_policy(sink) -> str:
    rules = "".join(
        f"      - {{domain: {host}, ports: [{sink.port}]}}\n" for host in ("inside.test", "meta.test", "localhost")
    )
    return f"networkPolicy:\n  name: test\n  egress:\n    allow:\n{rules}"


def upload(sock: socket.socket, stop: threading.Event, *, chunked: bool) -> threading.Thread:
    def run() -> None:
        piece = b"x" * 65536
        line = b"10000\r\n" + piece + b"\r\n" if chunked else piece
        try:
            while not stop.is_set():
                sock.sendall(line)
        except OSError:
            return

    thread = threading.Thread(target=run)
    thread.start()
    return thread


@pytest.mark.parametrize("how", ["connect", "chunked"])
@pytest.mark.parametrize("paused", [False, True], ids=["flowing", "blocked"])
def test_an_aborted_upload_is_reset_at_its_destination(gateway, sink, how, paused):
    sink.reply = b""
    if how == "connect":
        sock, status = connect(gateway, "other.test", sink.port)
        assert status == 200
    else:
        sock = gateway.dial()
        place = f"good.test:{sink.port}"
        sock.sendall(f"POST http://{place}/up HTTP/1.1\r\nHost: {place}\r\nTransfer-Encoding: chunked\r\n\r\n".encode())
    stop = threading.Event()
    thread = upload(sock, stop, chunked=how == "chunked")
    gateway.until(lambda: sink.received > 40_000_000, seconds=60)
    assert kinds(gateway)[6], "traffic is reported while it flows"
    if paused:
        sink.paused.set()  # the destination stops reading: the gateway waits in a write, not in a read
        before = -1
        while before != (before := sink.received):
            gateway.until(lambda: True)
        gateway.client.health()
    abort_from_outside(sock)
    stop.set()
    thread.join(10)
    abort(sock)
    gateway.until(lambda: kinds(gateway).get(2), what="the gateway noticed")
    sink.paused.clear()
    gateway.until(lambda: sink.ended == ["reset"])
    counted = kinds(gateway)[2][-1]
    after = sink.received
    gateway.client.health()
    assert sink.received == after
    sent = total(counted)
    # Nothing beyond what was in flight: the destination cannot have more than the gateway wrote.
    assert after <= sent


def total(event: dict) -> int:
    found = []

    def walk(value: object, key: str = "") -> None:
        if isinstance(value, dict):
            for name, item in value.items():
                walk(item, name)
        elif key == "bytes_out" and isinstance(value, int):
            found.append(value)

    walk(event)
    return found[0]


def abort_from_outside(sock: socket.socket) -> None:
    """As isolation does: the kernel destroys the connection under a sender that is still trying."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.shutdown(socket.SHUT_RD)
    # connect to AF_UNSPEC disconnects with RST, while another thread is inside send.
    import ctypes

    ctypes.CDLL(None).connect(sock.fileno(), struct.pack("=H14x", socket.AF_UNSPEC), 16)


def test_a_cut_agent_loses_everything_until_it_is_taken_back(gateway, sink):
    sink.reply = b""
    sock, status = connect(gateway, "other.test", sink.port)
    assert status == 200
    with sock:
        assert gateway.client.cut("rogue", reason="test") == 1
        with pytest.raises(ConnectionResetError):
            sock.recv(100)
    gateway.until(lambda: sink.ended == ["reset"])
    assert connect(gateway, "other.test", sink.port)[1] == 403
    assert gateway.client.uncut("rogue")
    again, status = connect(gateway, "other.test", sink.port)
    again.close()
    assert status == 200


def test_a_new_version_resets_the_tunnels_it_denies(gateway, sink):
    sock, status = connect(gateway, "other.test", sink.port)
    assert status == 200
    with sock:
        gateway.client.put("test", gateway.policy("domain: good.test"), author="tester", reason="close")
        with pytest.raises(ConnectionResetError):
            sock.recv(100)
