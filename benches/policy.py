"""Policy decisions, what the gateway adds to a request, and what it costs to know who is calling.

`Policy: decide` is the engine alone, four levels deep (binary, destination, method, path). The rest is seen from the
agent's side: a GET on a new connection, in turn directly and by each way through a real gateway to the same server.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import json
import os
import secrets
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from benches.statistics import metric
from clawback.enforcement.core.identify import Identifier
from clawback.enforcement.gateway.client import GatewayClient
from clawback.enforcement.kernel import cgroups
from clawback.enforcement.policy.engine import Engine
from clawback.enforcement.policy.loader import load
from clawback.enforcement.policy.orders import Asked, Orders
from clawback.enforcement.policy.sensitive import sensitive
from clawback.enforcement.sandbox.record import Sandbox
from clawback.errors import Unreachable
from clawback.model import EgressOrder, InferenceEndpoint, InferenceKind, OrderKind, Scope, ScopeKind, Subject

__all__ = ["RUNS", "measure"]

RUNS = (100, 10)
_DECISIONS = 20_000
_ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
_SERVE = """
import json, sys
from pathlib import Path
from clawback.enforcement.gateway.main import serve
options = json.loads(sys.argv[1])
serve(Path(options["state"]), uid=None, resolve=options["resolve"], allow_private=("127.0.0.1/32",),
      upstream_ca=Path(options["roots"]))
"""
_FAR = """
import asyncio, benches.policy, sys
asyncio.run(benches.policy._serve(sys.argv[1]))
"""


def _openshell() -> Engine:
    """48 rules of 4 endpoints, about what a few dozen NemoClaw presets come to."""
    lines = ["version: 1", "network_policies:"]
    for rule in range(48):
        lines += [f"  r{rule}:", "    endpoints:"]
        for host in range(4):
            lines += [
                f"      - host: h{host}.r{rule}.test",
                "        port: 443",
                "        protocol: rest",
                "        enforcement: enforce",
                "        rules: [{allow: {method: GET, path: '/v1/**'}}, {allow: {method: POST, path: '/v1/items/*'}}]",
            ]
        lines.append("    binaries: [{path: /usr/bin/curl}, {path: '/usr/bin/python3*'}]")
    return Engine(load("\n".join(lines), where="bench").network)


def _seeds() -> Engine:
    """64 allow rules and 8 deny rules of the `networkPolicy` form."""
    allow = [f'      - {{domain: h{n}.test, methods: [GET], paths: ["/v1/**"]}}' for n in range(64)]
    deny = [f'      - {{domain: "*.d{n}.test", paths: ["/admin/**"]}}' for n in range(8)]
    text = ["networkPolicy:", "  name: bench", "  egress:", "    allow:", *allow, "    deny:", *deny]
    return Engine(load("\n".join(text), where="bench").network)


def _decisions() -> dict[str, Any]:
    found = {}
    programs = (("/usr/bin/python3.11", "/usr/bin/bash"),)
    for name, engine, host in (
        ("openshell, 192 endpoints", _openshell(), "h3.r47.test"),
        ("72 rules", _seeds(), "h63.test"),
    ):
        for outcome, path in (("allowed", "/v1/items/7?x=1"), ("denied", "/v2/items/7")):
            times = []
            for _ in range(_DECISIONS):
                begun = time.perf_counter()
                verdict = engine.decide(host=host, port=443, method="GET", path=path, programs=programs)
                times.append((time.perf_counter() - begun) * 1e6)
                assert verdict.allowed is (outcome == "allowed")
            found[f"Policy: decide, {name}, {outcome}"] = metric(times, "µs")
    return found


def _standing(count: int) -> Orders:
    """Orders of four incidents in five scopes: by name, below a name, by network; one tool and one inference order."""
    scopes = [Scope(ScopeKind.ALL), Scope(ScopeKind.TEAM, "support")]
    scopes += [Scope(ScopeKind.AGENT, f"agent-{n}") for n in range(3)]
    hosts = ("h{n}.test", "*.d{n}.test", "198.51.{m}.{k}/32")
    orders = [
        EgressOrder(
            id=f"o{n}", kind=OrderKind.DESTINATION, scope=scopes[n % 5], reason="r", by="b", placed_ns=n,
            host=hosts[n % 3].format(n=n, m=n % 256, k=n // 256),
        )
        for n in range(count)
    ]  # fmt: skip
    if count >= 10:
        common: dict[str, Any] = {"scope": scopes[0], "reason": "r", "by": "b"}
        orders[8] = EgressOrder(id="o8", kind=OrderKind.TOOL, tool="delete_*", host="mcp.test", **common)
        orders[9] = EgressOrder(id="o9", kind=OrderKind.INFERENCE, mode="cut", **common)
    return Orders(orders, (InferenceEndpoint(host="api.cloud.test", kind=InferenceKind.CLOUD),))


def _orders() -> dict[str, Any]:
    """What the orders add to each decision."""
    found = {}
    subject = Subject(agent="agent-1", tenant="acme", team="support", tags=("env=prod",))
    for count in (0, 10, 1000):
        orders = _standing(count)
        for outcome, host in (("nothing to say", "elsewhere.test"), ("denied", "h3.test")):
            if outcome == "denied" and not count:
                continue
            times = []
            for _ in range(_DECISIONS):
                begun = time.perf_counter()
                ruling = orders.decide(subject, Asked(host=host, port=443, method="GET", path="/v1/items/7"))
                times.append((time.perf_counter() - begun) * 1e6)
                assert bool(ruling.denied) is (outcome == "denied" and count > 0), (host, ruling)
            found[f"Orders: {count}, {outcome}"] = metric(times, "µs")
    return found


def _prompts() -> dict[str, Any]:
    """Looking for what is sensitive in a prompt of so many bytes."""
    found = {}
    for size in (4, 64, 256):
        text = json.dumps({"messages": [{"content": "The quick brown fox jumps over the lazy dog. " * (size * 24)}]})
        body = text.encode()[: size * 1024 - 4] + b'"}]}'
        times = []
        for _ in range(20):
            begun = time.perf_counter()
            assert sensitive(body) == ()
            times.append((time.perf_counter() - begun) * 1e3)
        found[f"Orders: look for what is sensitive in {size} KiB"] = metric(times, "ms")
    return found


def _certificates(folder: Path) -> None:
    """A root in `roots.pem`, and in `server.pem` a key and certificate of `far.test` from it."""
    now, name = dt.datetime.now(dt.UTC), x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "bench root")])
    root, key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))

    def sign(whose: ec.EllipticCurvePrivateKey, subject: x509.Name, extension: x509.ExtensionType) -> bytes:
        builder = x509.CertificateBuilder().subject_name(subject).issuer_name(name).public_key(whose.public_key())
        builder = builder.serial_number(x509.random_serial_number()).not_valid_before(now - dt.timedelta(hours=1))
        builder = builder.not_valid_after(now + dt.timedelta(hours=2)).add_extension(extension, critical=True)
        return builder.sign(root, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)

    (folder / "roots.pem").write_bytes(sign(root, name, x509.BasicConstraints(ca=True, path_length=0)))
    private = serialization.PrivateFormat.PKCS8
    pem = key.private_bytes(serialization.Encoding.PEM, private, serialization.NoEncryption())
    names = x509.SubjectAlternativeName([x509.DNSName("far.test"), x509.DNSName("blind.test")])
    (folder / "server.pem").write_bytes(pem + sign(key, x509.Name([]), names))


async def _serve(folder: str) -> None:
    """In a process of its own: a plain server and a TLS one; their ports are printed."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            while True:
                await reader.readuntil(b"\r\n\r\n")
                writer.write(_ANSWER)
                await writer.drain()
        writer.close()

    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(Path(folder, "server.pem"))
    servers = [await asyncio.start_server(answer, "127.0.0.1", 0, ssl=one) for one in (None, context)]
    sys.stdout.write(json.dumps([server.sockets[0].getsockname()[1] for server in servers]) + "\n")
    sys.stdout.flush()
    await asyncio.Event().wait()


@contextlib.contextmanager
def _process(*arguments: str, output: int | None = None) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen([sys.executable, "-c", *arguments], stdout=output, stderr=subprocess.DEVNULL)
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(10)
        if process.stdout:
            process.stdout.close()


def _get(sock: socket.socket, line: str, host: str) -> None:
    sock.sendall(f"GET {line} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
    data = b""
    while not data.endswith(b"ok"):
        piece = sock.recv(4096)
        assert piece, data
        data += piece
    assert data.startswith(b"HTTP/1.1 200"), data


def _ways(gateway: int, plain: int, secure: int, roots: Path, bundle: Path) -> dict[str, Callable[[], None]]:
    to_far, to_gateway = ssl.create_default_context(cafile=roots), ssl.create_default_context(cafile=bundle)

    def direct() -> None:
        with socket.create_connection(("127.0.0.1", plain)) as sock:
            _get(sock, "/v1/x", f"far.test:{plain}")

    def proxied() -> None:
        with socket.create_connection(("127.0.0.1", gateway)) as sock:
            _get(sock, f"http://far.test:{plain}/v1/x", f"far.test:{plain}")

    def direct_tls() -> None:
        with (
            socket.create_connection(("127.0.0.1", secure)) as sock,
            to_far.wrap_socket(sock, server_hostname="far.test") as tls,
        ):
            _get(tls, "/v1/x", f"far.test:{secure}")

    def through(host: str, context: ssl.SSLContext) -> Callable[[], None]:
        def go() -> None:
            with socket.create_connection(("127.0.0.1", gateway)) as sock:
                sock.sendall(f"CONNECT {host}:{secure} HTTP/1.1\r\nHost: {host}:{secure}\r\n\r\n".encode())
                assert b" 200 " in sock.recv(1000)
                with context.wrap_socket(sock, server_hostname=host) as tls:
                    _get(tls, "/v1/x", f"{host}:{secure}")

        return go

    return {
        "HTTP direct": direct,
        "HTTP by the gateway": proxied,
        "TLS direct": direct_tls,
        "TLS in a blind tunnel": through("blind.test", to_far),
        "TLS that ends in the gateway": through("far.test", to_gateway),
    }


def _latencies(n: int) -> tuple[dict[str, Any], dict[str, float]]:
    with tempfile.TemporaryDirectory(prefix="cb-", dir="/tmp") as name:
        state = Path(name)
        _certificates(state)
        roots = state / "roots.pem"
        options = {"state": name, "roots": str(roots), "resolve": {"far.test": "127.0.0.1", "blind.test": "127.0.0.1"}}
        with (
            _process(_FAR, name, output=subprocess.PIPE) as far,
            _process(_SERVE, json.dumps(options)),
            socket.create_server(("127.0.0.1", 0)) as listener,
        ):
            assert far.stdout
            plain, secure = json.loads(far.stdout.readline())
            client = GatewayClient(state / "run" / "gateway.sock")
            end = time.monotonic() + 20
            while True:
                with contextlib.suppress(Unreachable):
                    client.health()
                    break
                assert time.monotonic() < end, "the gateway did not come up"
                time.sleep(0.05)
            rules = (
                f'      - {{domain: far.test, ports: [{plain}, {secure}], methods: [GET], paths: ["/v1/**"]}}\n'
                f"      - {{domain: blind.test, ports: [{secure}]}}\n"
            )
            text = f"networkPolicy:\n  name: bench\n  egress:\n    allow:\n{rules}"
            client.put("bench", text, author="bench", reason="bench")
            with socket.socket(socket.AF_UNIX) as attach:
                attach.connect(str(state / "run" / "gateway-attach.sock"))
                line = json.dumps({"agent": "bench", "instance": "bench-1", "policy": "bench"}).encode() + b"\n"
                socket.send_fds(attach, [line], [listener.fileno()])
                assert json.loads(attach.recv(1000)) == {"ok": True}
                ways = _ways(listener.getsockname()[1], plain, secure, roots, state / "gateway" / "bundle.pem")
                times: dict[str, list[float]] = {way: [] for way in ways}
                for round_ in range(n + 3):
                    for way, go in ways.items():
                        begun = time.perf_counter()
                        go()
                        if round_ >= 3:
                            times[way].append((time.perf_counter() - begun) * 1e3)
                        time.sleep(0.002)
    found = {f"Gateway: {way}": metric(values, "ms") for way, values in times.items()}
    middle = {way: found[f"Gateway: {way}"]["p50"] for way in times}
    ratios = {
        "gateway HTTP ÷ direct": middle["HTTP by the gateway"] / middle["HTTP direct"],
        "gateway blind tunnel ÷ direct TLS": middle["TLS in a blind tunnel"] / middle["TLS direct"],
        "gateway ended TLS ÷ direct TLS": middle["TLS that ends in the gateway"] / middle["TLS direct"],
    }
    return found, ratios


_CALLER = """
import os, socket, subprocess, sys
server = socket.create_server(("127.0.0.1", 0))
children = [subprocess.Popen(["/usr/bin/sleep", "1000"]) for _ in range(int(sys.argv[1]))]
mine = socket.create_connection(server.getsockname())
taken, peer = server.accept()
taken.close()
print(peer[1], server.getsockname()[1], flush=True)
sys.stdin.read()
for child in children:
    child.kill()
    child.wait()
"""


def _callers(n: int) -> dict[str, Any]:
    """The asking alone, in the core: the connection of one process among a few and among many."""
    found = {}
    root = cgroups.discover().unified
    for count in (0, 31):
        group = Path(root, f"clawback-bench-{secrets.token_hex(4)}") if root else None
        process = subprocess.Popen(
            [sys.executable, "-c", _CALLER, str(count)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        assert process.stdout
        assert process.stdin
        try:
            here, there = map(int, process.stdout.readline().split())
            if group is not None:
                group.mkdir()
                children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
                for pid in (process.pid, *children):
                    (group / "cgroup.procs").write_text(str(pid))
            ticks = int(Path(f"/proc/{process.pid}/stat").read_text().rsplit(")", 1)[1].split()[19])
            box = Sandbox(
                agent="bench", instance="bench-1", pid=process.pid, start_ticks=ticks, shim_pid=0, shim_start_ticks=0,
                uid=0, cgroup=str(group or ""), folder="", policy="", policy_version=1, command=(), started_ns=0,
            )  # fmt: skip
            known = Identifier()
            times: dict[bool, list[float]] = {True: [], False: []}
            for round_ in range(n + 1):
                for first in (True, False) if round_ < 20 else (False,):
                    identifier = Identifier() if first else known
                    begun = time.perf_counter()
                    holders = identifier.holders(box, ("127.0.0.1", here), ("127.0.0.1", there))
                    if round_:
                        times[first].append((time.perf_counter() - begun) * 1e3)
                    assert [holder.pid for holder in holders] == [process.pid]
            found[f"Caller among {count + 1}: file known"] = metric(times[False], "ms")
            found[f"Caller among {count + 1}: with SHA-256 of its file"] = metric(times[True], "ms")
        finally:
            process.stdin.close()
            process.wait(10)
            process.stdout.close()
            if group is not None:
                group.rmdir()
    return found


def measure(n: int) -> dict[str, Any]:
    """`n` requests each way; decisions are 20,000 of each kind."""
    latencies, ratios = _latencies(n)
    metrics, notes = _decisions() | _orders() | _prompts() | latencies, []
    if os.geteuid() == 0:
        metrics |= _callers(n)
    else:
        notes.append("who is calling was not measured: looking into a network namespace needs root here")
    return {"metrics": metrics, "ratios": ratios, "notes": notes}
