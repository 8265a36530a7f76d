"""Orders in a real gateway: in force at once, over what is open too, and after any crash."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import random
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from clawback.enforcement.gateway.order_store import MOST_ORDERS, OrderStore
from clawback.errors import InvalidInput, NotEnforced, Refused, Unreachable
from clawback.model import Attempt, EgressOrder, OrderKind, Scope, ScopeKind, Subject

pytestmark = pytest.mark.slow

ALL = Scope(ScopeKind.ALL)
ROGUE = Scope(ScopeKind.AGENT, "rogue")
NUMBERS = itertools.count(1)
OPEN = "networkPolicy:\n  name: test\n  egress:\n    allow:\n      - {domain: good.test}\n      - {domain: a.test}\n"


def order(kind: OrderKind = OrderKind.DESTINATION, **fields: Any) -> EgressOrder:
    values = {"id": f"INC-1.{next(NUMBERS)}", "scope": ROGUE, "reason": "exfiltration", "by": "soc", **fields}
    return EgressOrder(kind=kind, **values)


def connect(gateway: Any, host: str, port: int) -> tuple[socket.socket, int, bytes]:
    sock = gateway.dial()
    sock.sendall(f"CONNECT {host}:{port} HTTP/1.1\r\nHost: {host}:{port}\r\n\r\n".encode())
    data = b""
    while b"\r\n\r\n" not in data and (piece := sock.recv(4096)):
        data += piece
    return sock, int(data.split(b" ", 2)[1]), data


def ask(gateway: Any, url: str, *, method: str = "GET", body: bytes = b"", extra: str = "") -> bytes:
    place = url.split("/")[2]
    length = f"Content-Length: {len(body)}\r\n" if body else ""
    head = f"{method} {url} HTTP/1.1\r\nHost: {place}\r\nConnection: close\r\n{length}{extra}\r\n"
    return bytes(gateway.send(head.encode() + body))


def said(answer: bytes) -> dict[str, Any]:
    return dict(json.loads(answer.partition(b"\r\n\r\n")[2]))


def blocked(gateway: Any, text: str, stream: str = "policy") -> list[dict[str, Any]]:
    try:
        lines = (gateway.state / "telemetry" / f"{stream}.jsonl").read_text().splitlines()
    except FileNotFoundError:
        return []
    return [event for event in map(json.loads, lines) if event.get("disposition_id") == 2 and text in str(event)]


def test_a_blocked_destination_is_named_in_the_answer_the_telemetry_and_decide(gateway, sink):
    one = order(host="good.test")
    standing, ended = gateway.client.place(one)
    assert (standing.what, ended, standing.uid) == ("destination good.test", 0, os.getuid())
    answer = ask(gateway, f"http://good.test:{sink.port}/")
    assert answer.startswith(b"HTTP/1.1 403")
    assert (said(answer)["rule"], said(answer)["level"]) == (one.rule, "order")
    assert f'proxy-status: clawback; error=http_request_denied; details="order {one.rule}"'.encode() in answer
    gateway.until(lambda: blocked(gateway, one.rule))
    attempt = Attempt(kind="http", target=f"GET http://good.test:{sink.port}/")
    decision = gateway.client.decide("test", attempt, subject=Subject(agent="rogue", tenant="", team="", tags=()))
    assert (decision.allowed, decision.rule, decision.level, decision.orders) == (False, one.rule, "order", (one.id,))
    assert gateway.client.decide("test", attempt).allowed, "without an agent, orders for one are not meant"
    assert sink.received == 0
    lifted = gateway.client.lift(one.id, reason="over", by="soc")
    assert lifted.id == one.id
    assert gateway.client.lift(one.id, reason="over", by="soc") is None
    assert ask(gateway, f"http://good.test:{sink.port}/").startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize("what", ["other.test", "*.test", "127.0.0.0/8", "*"])
def test_an_established_tunnel_ends_at_once_and_no_new_one_starts(gateway, sink, what):
    sink.reply = b""
    sock, status, _ = connect(gateway, "other.test", sink.port)
    assert status == 200
    with sock:
        sock.sendall(b"x" * 1000)
        gateway.until(lambda: sink.received == 1000)
        one = order(host=what)
        assert gateway.client.place(one)[1] == 1
        with pytest.raises(ConnectionResetError):
            sock.recv(1)
    gateway.until(lambda: sink.ended == ["reset"])
    again, status, answer = connect(gateway, "other.test", sink.port)
    again.close()
    assert (status, one.rule.encode() in answer) == (403, True)
    gateway.until(lambda: blocked(gateway, "what was open is ended"))
    assert gateway.client.lift(one.id, reason="over", by="soc")
    again, status, _ = connect(gateway, "other.test", sink.port)
    again.close()
    assert status == 200


def test_a_running_upload_stops_at_its_destination(gateway, sink):
    sink.reply = b""
    place = f"good.test:{sink.port}"
    with gateway.dial() as sock:
        sock.sendall(f"POST http://{place}/up HTTP/1.1\r\nHost: {place}\r\nTransfer-Encoding: chunked\r\n\r\n".encode())
        stop = threading.Event()

        def upload() -> None:
            with contextlib.suppress(OSError):
                while not stop.is_set():
                    sock.sendall(b"10000\r\n" + b"x" * 65536 + b"\r\n")

        thread = threading.Thread(target=upload)
        thread.start()
        gateway.until(lambda: sink.received > 1_000_000, seconds=60)
        assert gateway.client.place(order(host="good.test", port=sink.port))[1] == 1
        gateway.until(lambda: sink.ended == ["reset"])
        stop.set()
        thread.join(10)


def test_others_keep_their_connections(gateway, sink):
    sink.reply = b"answer"
    sock, status, _ = connect(gateway, "other.test", sink.port)
    with sock:
        assert status == 200
        assert gateway.client.place(order(host="other.test", scope=Scope(ScopeKind.AGENT, "somebody")))[1] == 0
        assert gateway.client.place(order(host="other.test", port=1))[1] == 0
        sock.sendall(b"question\r\n\r\n")
        assert sock.recv(100) == b"answer"


def test_scopes_go_by_what_the_core_said_of_the_agent(gateway, sink):
    url = f"http://good.test:{sink.port}/"
    asked = {}
    for name, labels in {
        "ours": {"tenant": "acme", "team": "a", "tags": ["env=prod"]},
        "theirs": {"tenant": "other", "team": "b", "tags": []},
        "unsaid": {},
    }.items():
        port, _ = gateway.attach(name, f"{name}-1", "test", **labels)
        asked[name] = port

    def denied() -> set[str]:
        found = set()
        for name, port in asked.items():
            gateway.port = port
            if ask(gateway, url).startswith(b"HTTP/1.1 403"):
                found.add(name)
        return found

    for scope, meant in (
        (Scope(ScopeKind.TENANT, "acme"), {"ours", "unsaid"}),
        (Scope(ScopeKind.TEAM, "b"), {"theirs", "unsaid"}),
        (Scope(ScopeKind.TAG, "env=prod"), {"ours", "unsaid"}),
        (ALL, {"ours", "theirs", "unsaid"}),
        (Scope(ScopeKind.AGENT, "theirs"), {"theirs"}),
    ):
        one, _ = gateway.client.place(order(host="good.test", scope=scope))
        assert denied() == meant
        gateway.client.lift(one.id, reason="over", by="soc")
    assert denied() == set()


def test_given_twice_it_stands_once_and_an_id_is_one_orders(gateway):
    one = order(host="evil.test")
    first, _ = gateway.client.place(one)
    again, _ = gateway.client.place(EgressOrder(**{**fields(one), "reason": "said otherwise"}))
    assert again == first
    assert gateway.client.orders() == (first,)
    with pytest.raises(Refused, match=r"denies destination evil\.test"):
        gateway.client.place(EgressOrder(**{**fields(one), "host": "other.test"}))
    with pytest.raises(InvalidInput, match="order: host: "):
        gateway.client.place(order(host="http://evil"))
    with pytest.raises(Refused, match="no inference endpoint is declared"):
        gateway.client.place(order(OrderKind.INFERENCE, mode="cut"))
    assert gateway.client.orders() == (first,)


def fields(one: EgressOrder) -> dict[str, Any]:
    return {name: getattr(one, name) for name in one.__dataclass_fields__}


# -- over restarts ---------------------------------------------------------------------------------------------------


def test_a_restart_keeps_them_from_the_first_connection_on(start, sink):
    gateway = start(text=OPEN)
    one, _ = gateway.client.place(order(host="good.test"))
    assert gateway.stop() == 0
    again = start()
    assert again.client.orders() == (one,)
    assert ask(again, f"http://good.test:{sink.port}/").startswith(b"HTTP/1.1 403")
    again.client.lift(one.id, reason="over", by="soc")
    assert again.stop() == 0
    last = start()
    assert last.client.orders() == ()
    assert ask(last, f"http://good.test:{sink.port}/").startswith(b"HTTP/1.1 200")


DIES = """
import os, signal
from clawback.enforcement.gateway.order_store import OrderStore
OrderStore.put = lambda self, order, real=OrderStore.put: (real(self, order), os.kill(os.getpid(), signal.SIGKILL))
"""


def test_killed_between_the_record_and_the_effect_it_stands_afterwards(start, sink):
    gateway = start(text=OPEN, before=DIES)
    one = order(host="good.test")
    with pytest.raises(Unreachable):
        gateway.client.place(one)
    assert gateway.process.wait(10) == -signal.SIGKILL
    again = start()
    assert [found.id for found in again.client.orders()] == [one.id]
    assert ask(again, f"http://good.test:{sink.port}/").startswith(b"HTTP/1.1 403")
    assert [found.id for found in (again.client.place(one)[0], *again.client.orders())] == [one.id] * 2


def test_killed_at_any_moment_what_was_acknowledged_stands(state):
    """The store alone, in a process that says what it has been told is durable, killed while it writes."""
    code = (
        "import sys; from pathlib import Path\n"
        "from clawback.enforcement.gateway.order_store import OrderStore\n"
        "from clawback.model import EgressOrder, OrderKind, Scope, ScopeKind\n"
        "store = OrderStore(Path(sys.argv[1])); print('up', flush=True)\n"
        "for n in range(900):\n"
        "    store.put(EgressOrder(id=f'{sys.argv[2]}.{n}', kind=OrderKind.DESTINATION, scope=Scope(ScopeKind.ALL),\n"
        "                          reason='r', by='b', host=f'h{n}.test'))\n"
        "    print(n, flush=True)\n"
        "    if n % 3 == 0: store.lift(f'{sys.argv[2]}.{n}'); print(-n, flush=True)\n"
    )
    chance = random.Random(7)
    for round_ in range(6):
        folder = state / f"orders{round_}"
        process = subprocess.Popen([sys.executable, "-c", code, str(folder), "x"], stdout=subprocess.PIPE)
        assert process.stdout
        lines = [process.stdout.readline() for _ in range(1 + chance.randrange(1, 60))]
        process.kill()
        lines += process.stdout.readlines()
        process.stdout.close()
        process.wait(10)
        told = [int(line) for line in lines[1:] if line.endswith(b"\n")]
        placed = {n for n in told if n >= 0}
        found = {one.host for one in OrderStore(folder).all()}
        last = max(placed)
        # Of the last one, the end may have been durable before it was said.
        assert {f"h{n}.test" for n in placed if n % 3 and n != last} <= found
        assert not found & {f"h{-n}.test" for n in told if n < 0}
        assert not any(one.kind is OrderKind.DAMAGED for one in OrderStore(folder).all())


@pytest.mark.parametrize(
    "harm",
    [
        lambda file: file.write_bytes(b""),
        lambda file: file.write_bytes(file.read_bytes()[:-20]),
        lambda file: file.write_bytes(file.read_bytes().replace(b"good.test", b"gone.test")),
        lambda file: (file.unlink(), file.symlink_to("/dev/null")),
        lambda file: file.rename(file.with_name("other.json")),
        lambda file: (file.unlink(), file.mkdir()),
    ],
    ids=["emptied", "cut", "changed", "a link", "renamed", "a folder"],
)
def test_a_damaged_record_denies_everything_until_it_is_given_anew_or_lifted(start, sink, harm):
    names = {"good.test": "127.0.0.1", "a.test": "127.0.0.1"}
    gateway = start(text=OPEN, resolve=names)
    one, _ = gateway.client.place(order(host="good.test"))
    assert gateway.stop() == 0
    harm(gateway.state / "orders" / f"{one.id}.json")
    again = start(resolve=names)
    (damaged,) = again.client.orders()
    assert damaged.kind is OrderKind.DAMAGED
    answer = ask(again, f"http://a.test:{sink.port}/")
    assert answer.startswith(b"HTTP/1.1 403")
    assert said(answer)["rule"] == damaged.rule
    if damaged.id == one.id and not (gateway.state / "orders" / f"{one.id}.json").is_dir():
        again.client.place(one)
        assert [found.kind for found in again.client.orders()] == [OrderKind.DESTINATION]
        assert ask(again, f"http://a.test:{sink.port}/").startswith(b"HTTP/1.1 200")
        assert ask(again, f"http://good.test:{sink.port}/").startswith(b"HTTP/1.1 403")
    elif damaged.id != one.id:
        again.client.lift(damaged.id, reason="seen to", by="soc")
        assert ask(again, f"http://a.test:{sink.port}/").startswith(b"HTTP/1.1 200")
    else:
        with pytest.raises(NotEnforced, match="could not be taken off the disk"):
            again.client.lift(damaged.id, reason="seen to", by="soc")
        assert ask(again, f"http://a.test:{sink.port}/").startswith(b"HTTP/1.1 403")


def test_there_are_only_so_many(state):
    folder = state / "orders"
    folder.mkdir()
    for n in range(MOST_ORDERS - 1):
        (folder / f"x{n}.json").write_text("{}")
    store = OrderStore(folder)
    one = order(host="a.test")
    store.put(one)
    with pytest.raises(Refused, match="stand already"):
        store.put(order(host="b.test"))
    assert store.put(one).id == one.id
    store.lift("x0")
    store.put(order(host="b.test"))


def test_what_cannot_be_written_does_not_count(state, monkeypatch):
    store = OrderStore(state / "orders")
    monkeypatch.setattr(os, "fsync", lambda _fd: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(NotEnforced, match="No space left"):
        store.put(order(host="a.test"))
    assert store.all() == ()
    monkeypatch.undo()
    assert OrderStore(state / "orders").all() == ()


# -- hostile and broken callers --------------------------------------------------------------------------------------


def test_who_may_not_use_the_gateway_gives_no_orders(gateway):
    if os.geteuid() != 0:
        pytest.skip("another user's calls need root to make")
    code = (
        "import os, socket, sys; os.setgid(65534); os.setuid(65534)\n"
        "s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1])\n"
        "try: s.sendall(b'PUT /orders/x HTTP/1.1\\r\\nhost: g\\r\\ncontent-length: 0\\r\\n\\r\\n')\n"
        "except BrokenPipeError: pass\n"
        "sys.stdout.write(s.recv(100).decode()[:12])\n"
    )
    path = str(gateway.state / "run" / "gateway.sock")
    done = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True, check=False, timeout=20)
    assert done.stdout == "HTTP/1.1 403", done.stderr


@pytest.mark.parametrize(
    "body",
    [b"", b"[]", b"{}", b'{"kind": "damaged", "scope_kind": "all", "reason": "r", "by": "b"}', b"\xff", b'{"kind": 1}',
     b'{"kind": "destination", "scope_kind": "all", "reason": "r", "by": "b", "host": "a.test", "more": 1}',
     b'{"kind": "destination", "scope_kind": "all", "reason": "r", "by": "b", "host": "\\ud800.test"}'],
)  # fmt: skip
def test_a_broken_order_is_refused_with_a_reason(gateway, body):
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(str(gateway.state / "run" / "gateway.sock"))
        head = f"PUT /orders/x HTTP/1.1\r\nhost: g\r\nconnection: close\r\ncontent-length: {len(body)}\r\n\r\n"
        sock.sendall(head.encode() + body)
        answer = sock.makefile("rb").read()
    assert answer.startswith(b"HTTP/1.1 400"), answer
    assert said(answer)["error"]["message"]
    assert gateway.client.orders() == ()


@pytest.mark.parametrize("name", ["..", ".x", "a%2fb", "x" * 200, "%00"])
def test_an_id_that_is_none_writes_nowhere(gateway, name):
    before = {path for path in gateway.state.rglob("*") if "telemetry" not in str(path)}
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(str(gateway.state / "run" / "gateway.sock"))
        body = json.dumps({"kind": "destination", "scope_kind": "all", "reason": "r", "by": "b", "host": "a.test"})
        head = f"PUT /orders/{name} HTTP/1.1\r\nhost: g\r\nconnection: close\r\ncontent-length: {len(body)}\r\n\r\n"
        sock.sendall((head + body).encode())
        assert sock.makefile("rb").read().split(b" ", 2)[1] in {b"400", b"404", b"405"}
    assert {path for path in gateway.state.rglob("*") if "telemetry" not in str(path)} == before


def test_a_destination_cannot_say_that_the_gateway_denied(gateway, sink):
    sink.reply = (
        b'HTTP/1.1 403 Forbidden\r\nProxy-Status: clawback; details="order order:x"\r\nContent-Length: 2\r\n\r\nno'
    )
    answer = ask(gateway, f"http://good.test:{sink.port}/")
    assert answer.startswith(b"HTTP/1.1 403")
    assert b"proxy-status" not in answer.lower()


@pytest.mark.parametrize("labels", [{"tenant": 1}, {"tags": "x"}, {"tags": [1]}, {"team": None, "more": 1}])
def test_labels_that_are_none_attach_nobody(gateway, labels):
    with socket.create_server(("127.0.0.1", 0)) as one:
        line = {"agent": "x", "instance": "x-1", "policy": "test", **labels}
        assert gateway.say(line, [one.fileno()])["ok"] is False


def test_the_folder_is_the_gateways_alone(gateway):
    gateway.client.place(order(host="a.test"))
    folder = Path(gateway.state / "orders")
    assert folder.stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o600}


def test_what_a_policy_calls_a_model_is_an_inference_endpoint(start, sink):
    """Declared by nobody else; and a version that calls another host a model counts from when it is in force."""
    text = f"""\
networkPolicy:
  name: test
  egress:
    allow:
      - {{domain: good.test, ports: [{sink.port}], methods: [GET], paths: ["/v1/**"], model: cloud}}
      - {{domain: a.test, ports: [{sink.port}]}}
"""
    names = {"good.test": "127.0.0.1", "a.test": "127.0.0.1"}
    gateway = start(text=text, resolve=names)
    one, _ = gateway.client.place(order(OrderKind.INFERENCE, mode="cut", scope=ALL))
    assert said(ask(gateway, f"http://good.test:{sink.port}/v1/x"))["rule"] == one.rule
    sock, status, _ = connect(gateway, "a.test", sink.port)
    assert status == 200
    with sock:
        marked = text.replace(f"a.test, ports: [{sink.port}]", f"a.test, ports: [{sink.port}], model: local")
        gateway.client.put("test", marked, author="t", reason="t")
        with pytest.raises(ConnectionResetError):
            sock.recv(1)
    assert gateway.stop() == 0
    again = start(resolve=names)
    for host in ("good.test", "a.test"):
        assert said(ask(again, f"http://{host}:{sink.port}/v1/x"))["rule"] == one.rule


def test_who_placed_and_lifted_is_in_the_telemetry_and_damage_in_the_health(gateway):
    one, _ = gateway.client.place(order(host="evil.test"))
    gateway.client.lift(one.id, reason="a false alarm", by="anna")
    changes = gateway.until(lambda: [e for e in gateway.events(5019) if one.id in str(e)][1:])
    assert ("is lifted" in str(changes[-1]), "anna" in str(changes[-1])) == (True, True)
    health = gateway.client.health()
    assert (health["orders"], health["orders_damaged"]) == (0, [])
