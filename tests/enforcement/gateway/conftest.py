"""A real gateway process per test, an agent's listeners handed to it, and plain TCP destinations to reach or not."""

from __future__ import annotations

import contextlib
import datetime as dt
import http.server
import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from clawback.enforcement.gateway.client import GatewayClient
from clawback.errors import Unreachable

SERVE = """
import json, sys
from pathlib import Path
from clawback.enforcement.gateway.main import serve
from clawback.model import InferenceEndpoint, InferenceKind
options = json.loads(sys.argv[1])
exec(options["before"])
serve(Path(options["state"]), uid=options["uid"], resolve=options["resolve"],
      allow_private=tuple(options["allow_private"]), peers=tuple(options["peers"]),
      upstream_ca=Path(options["upstream_ca"]) if options["upstream_ca"] else None,
      inference=[InferenceEndpoint(**{**one, "kind": InferenceKind(one["kind"])}) for one in options["inference"]],
      queue_seconds=options["queue_seconds"])
"""


def until(look: Callable[[], Any], *, seconds: float = 10.0, what: str = "") -> Any:
    deadline = time.monotonic() + seconds
    while True:
        found = look()
        if found:
            return found
        assert time.monotonic() < deadline, what or "did not happen in time"
        time.sleep(0.005)


def policy(*allow: str, deny: tuple[str, ...] = ()) -> str:
    rules = "".join(f"      - {{{rule}}}\n" for rule in allow) or "      []\n"
    denied = "    deny:\n" + "".join(f"      - {{{rule}}}\n" for rule in deny) if deny else ""
    return f"networkPolicy:\n  name: test\n  egress:\n    allow:\n{rules}{denied}"


def answer(sock: socket.socket) -> bytes:
    data = b""
    with contextlib.suppress(ConnectionResetError):
        while True:
            head, split, body = data.partition(b"\r\n\r\n")
            if split:
                length = next(
                    (int(line[15:]) for line in head.lower().split(b"\r\n") if line[:15] == b"content-length:"), -1
                )
                if 0 <= length <= len(body):
                    return data
            piece = sock.recv(65536)
            if not piece:
                return data
            data += piece
    return data


@dataclass
class Running:
    """One gateway process with one attached agent, `rogue-1`."""

    state: Path
    process: subprocess.Popen[bytes]
    client: GatewayClient
    port: int
    port6: int

    def attach(self, agent: str, instance: str, policy: str, **labels: Any) -> tuple[int, int]:
        """Hand over new listeners as the core does, and close them here; their ports."""
        with (
            socket.create_server(("127.0.0.1", 0)) as v4,
            socket.create_server(("::1", 0), family=socket.AF_INET6) as v6,
        ):
            line = {"agent": agent, "instance": instance, "policy": policy, **labels}
            assert self.say(line, [v4.fileno(), v6.fileno()]) == {"ok": True}
            return v4.getsockname()[1], v6.getsockname()[1]

    def say(self, line: object, fds: list[int] | None = None) -> dict[str, Any]:
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(5)
            sock.connect(str(self.state / "run" / "gateway-attach.sock"))
            data = line if isinstance(line, bytes) else json.dumps(line).encode() + b"\n"
            socket.send_fds(sock, [data], fds or [])
            return dict(json.loads(sock.makefile("rb").readline()))

    def dial(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=10)

    def send(self, raw: bytes) -> bytes:
        """What the gateway answers to these bytes, until it closes or the first response is whole."""
        with self.dial() as sock:
            sock.sendall(raw)
            return answer(sock)

    def events(self, kind: int = 0) -> list[dict[str, Any]]:
        try:
            text = (self.state / "telemetry" / "policy.jsonl").read_text()
        except FileNotFoundError:
            return []
        whole = text[: text.rfind("\n") + 1]  # the last line may be being written
        found = [json.loads(line) for line in whole.splitlines()]
        return [event for event in found if not kind or event["class_uid"] == kind]

    until = staticmethod(until)
    answer = staticmethod(answer)
    policy = staticmethod(policy)

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(10)


@dataclass
class Sink:
    """A TCP destination that counts what reaches it and notes how each connection ended."""

    server: socket.socket
    reply: bytes = b""
    when: bytes = b"\r\n\r\n"  # answers once this has come
    received: int = 0
    data: bytes = b""
    ended: list[str] = field(default_factory=list)
    paused: threading.Event = field(default_factory=threading.Event)

    @property
    def port(self) -> int:
        return int(self.server.getsockname()[1])

    def run(self) -> None:
        while True:
            try:
                conn, _ = self.server.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(conn,), daemon=True).start()

    def _serve(self, conn: socket.socket) -> None:
        answered = False
        with conn:
            try:
                while piece := conn.recv(65536):
                    self.received += len(piece)
                    if len(self.data) < 1_000_000:
                        self.data += piece
                    if self.reply and not answered and self.when in self.data:
                        conn.sendall(self.reply)
                        answered = True
                    while self.paused.is_set():
                        time.sleep(0.005)
                self.ended.append("end")
            except ConnectionResetError:
                self.ended.append("reset")


class Roots:
    """An authority of the outside world, and servers' certificates from it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "the world's roots")])
        self.file = folder / "roots.pem"
        self.file.write_bytes(self._sign(self.name, self.key, x509.BasicConstraints(ca=True, path_length=0)))

    def context(self, *hosts: str) -> ssl.SSLContext:
        """For a server that proves to be these."""
        key = ec.generate_private_key(ec.SECP256R1())
        names = x509.SubjectAlternativeName([x509.DNSName(host) for host in hosts])
        file = self.folder / f"{hosts[0]}.pem"
        private = serialization.PrivateFormat.PKCS8
        pem = key.private_bytes(serialization.Encoding.PEM, private, serialization.NoEncryption())
        file.write_bytes(pem + self._sign(x509.Name([]), key, names))
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(file)
        context.set_alpn_protocols(["h2", "http/1.1"])
        return context

    def _sign(self, name: x509.Name, key: ec.EllipticCurvePrivateKey, *extensions: x509.ExtensionType) -> bytes:
        now = dt.datetime.now(dt.UTC)
        builder = (
            x509.CertificateBuilder().subject_name(name).issuer_name(self.name).public_key(key.public_key())
            .serial_number(x509.random_serial_number()).not_valid_before(now - dt.timedelta(hours=1))
            .not_valid_after(now + dt.timedelta(hours=1))
        )  # fmt: skip
        for extension in extensions:
            builder = builder.add_extension(extension, critical=True)
        return builder.sign(self.key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


@dataclass
class Server:
    """An HTTPS destination that keeps what it was asked; `reply(request)` gives its answers."""

    http: http.server.ThreadingHTTPServer
    requests: list[tuple[str, str, dict[str, str], bytes]] = field(default_factory=list)
    reply: Callable[[str], tuple[int, dict[str, str], bytes]] = lambda _path: (200, {}, b"hi")

    @property
    def port(self) -> int:
        return int(self.http.server_address[1])


@pytest.fixture
def roots(state: Path) -> Roots:
    return Roots(state)


@pytest.fixture
def serve(roots: Roots) -> Iterator[Callable[..., Server]]:
    """HTTPS servers on loopback with a certificate for the given hosts; plain ones without a host."""
    running: list[tuple[Server, threading.Thread]] = []

    def go(*hosts: str) -> Server:
        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def _any(self) -> None:
                body = self.rfile.read(int(self.headers.get("content-length", 0)))
                one.requests.append((self.command, self.path, {k.lower(): v for k, v in self.headers.items()}, body))
                status, headers, data = one.reply(self.path)
                self.send_response(status)
                for name, value in ({"Content-Length": str(len(data))} | headers).items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(data)

            do_GET = do_POST = do_DELETE = do_PUT = _any  # noqa: N815  # the standard library's names

            def log_message(self, *_: object) -> None:
                pass

        server = Quiet(("127.0.0.1", 0), Handler)
        one = Server(server)
        if hosts:
            # The handshake in the connection's own thread: a client that breaks it off must not stop the server.
            server.socket = roots.context(*hosts).wrap_socket(
                server.socket, server_side=True, do_handshake_on_connect=False
            )
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        running.append((one, thread))
        return one

    yield go
    for one, thread in running:
        one.http.shutdown()
        thread.join(10)
        one.http.server_close()


class Quiet(http.server.ThreadingHTTPServer):
    """A client that refuses the certificate is no news."""

    def handle_error(self, *_: object) -> None:
        pass


OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi"


@pytest.fixture
def sink() -> Iterator[Sink]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        one = Sink(server, reply=OK)
        threading.Thread(target=one.run, daemon=True).start()
        yield one
        with contextlib.suppress(OSError):
            server.shutdown(socket.SHUT_RDWR)


@pytest.fixture
def start(state: Path) -> Iterator[Callable[..., Running]]:
    """Starts gateways on one state folder, and ends them."""
    started: list[subprocess.Popen[bytes]] = []

    def go(*, uid: int | None = 1_899_999, state: Path = state, text: str = "", **options: Any) -> Running:
        values = {
            "state": str(state),
            "uid": uid,
            "resolve": {"good.test": "127.0.0.1", "other.test": "127.0.0.1", "rebound.test": "10.11.12.13"},
            "allow_private": ["127.0.0.1/32"],
            "peers": [],
            "upstream_ca": "",
            "inference": [],
            "queue_seconds": 60.0,
            "before": "",  # code that runs in the process first, to have it die at a chosen point
            **options,
        }
        process = subprocess.Popen([sys.executable, "-c", SERVE, json.dumps(values)], stderr=subprocess.PIPE)
        started.append(process)
        threading.Thread(target=_show, args=(process,), daemon=True).start()
        client = GatewayClient(state / "run" / "gateway.sock")

        def up() -> bool:
            assert process.poll() is None, "the gateway ended"
            with contextlib.suppress(Unreachable):
                return bool(client.health()["status"] == "ok")
            return False

        until(up, seconds=20)
        running = Running(state, process, client, 0, 0)
        if text:
            client.put("test", text, author="tester", reason="test", known_good=True)
        running.port, running.port6 = running.attach("rogue", "rogue-1", "test")
        return running

    yield go
    for process in started:
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                os.kill(process.pid, signal.SIGKILL)
                process.wait()
        if process.stderr:
            process.stderr.close()


def _show(process: subprocess.Popen[bytes]) -> None:
    assert process.stderr
    with contextlib.suppress(ValueError):
        for line in process.stderr:
            sys.stderr.write(line.decode())


@pytest.fixture
def gateway(start: Callable[..., Running], sink: Sink) -> Running:
    """With one rule for each way of being allowed."""
    return start(
        text=policy(
            f'name: plain, domain: good.test, ports: [{sink.port}], methods: [GET, POST], paths: ["/**"]',
            f"name: tunnel, domain: other.test, ports: [{sink.port}]",
            f"name: rebound, domain: rebound.test, ports: [{sink.port}]",
            deny=('name: secret, domain: good.test, methods: [GET], paths: ["/secret/**"]',),
        )
    )
