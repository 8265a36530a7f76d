"""A real gateway under the world in memory: the agents' listeners are its own, and attempts are made through them."""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from clawback.enforcement.gateway.client import GatewayClient
from clawback.enforcement.sandbox import trying
from clawback.errors import Unreachable
from clawback.model import Attempt, AttemptResult, LaunchSpec

SERVE = """
import sys
from pathlib import Path
from clawback.enforcement.gateway.main import serve
from clawback.model import InferenceEndpoint, InferenceKind
port = int(sys.argv[2])
serve(Path(sys.argv[1]), uid=None, resolve={"good.test": "127.0.0.1", "local.test": "127.0.0.1"},
      allow_private=("127.0.0.1/32",), queue_seconds=5.0,
      inference=(InferenceEndpoint(host="good.test", port=port, kind=InferenceKind.CLOUD, path="/v1"),
                 InferenceEndpoint(host="local.test", port=port, kind=InferenceKind.LOCAL)))
"""
HOSTS = ("good.test", "local.test")


@dataclass
class Gate:
    """The gateway's process, and the port of each agent's way out."""

    state: Path
    far: socket.socket
    client: GatewayClient
    process: subprocess.Popen[bytes] | None = None
    ports: dict[str, int] = field(default_factory=dict)
    received: list[bytes] = field(default_factory=list)
    listeners: dict[str, socket.socket] = field(default_factory=dict)

    @property
    def port(self) -> int:
        return int(self.far.getsockname()[1])

    def start(self) -> None:
        self.process = subprocess.Popen([sys.executable, "-c", SERVE, str(self.state), str(self.port)])
        end = time.monotonic() + 30
        while True:
            assert self.process.poll() is None, "the gateway ended"
            with contextlib.suppress(Unreachable):
                self.client.health()
                break
            assert time.monotonic() < end, "the gateway did not come up"
            time.sleep(0.02)

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait(10)
            self.process = None

    def attach(self, info: Any) -> None:
        """As the core does, again after a restart."""
        listener = self.listeners.setdefault(info.agent, socket.create_server(("127.0.0.1", 0)))
        self.ports[info.agent] = listener.getsockname()[1]
        line = {"agent": info.agent, "instance": info.instance, "policy": info.policy, "tenant": info.tenant}
        line |= {"team": info.team, "tags": list(info.tags)}
        with socket.socket(socket.AF_UNIX) as sock:
            sock.connect(str(self.state / "run" / "gateway-attach.sock"))
            socket.send_fds(sock, [json.dumps(line).encode() + b"\n"], [listener.fileno()])
            assert json.loads(sock.recv(1000)) == {"ok": True}

    def serve(self) -> None:
        """Destinations: whatever comes is answered, and kept."""
        while True:
            try:
                sock, _ = self.far.accept()
            except OSError:
                return
            with sock, contextlib.suppress(OSError):
                sock.settimeout(5)
                if said := sock.recv(65536):  # the gateway itself only looks whether a model takes connections
                    self.received.append(said)
                sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nhi")


@pytest.fixture
def gate(state: Path, there: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Gate]:
    """`there.world` has this gateway's orders; agents `a` (acme, support) and `b` (other, sales, env=prod) run."""
    allow = "".join(f"      - {{domain: {host}}}\n" for host in HOSTS)
    policy = f"networkPolicy:\n  name: support\n  egress:\n    allow:\n{allow}"
    with socket.create_server(("127.0.0.1", 0)) as far:
        one = Gate(state, far, GatewayClient(state / "run" / "gateway.sock"))
        threading.Thread(target=one.serve, daemon=True).start()
        try:
            one.start()
            one.client.put("support", policy, author="t", reason="t")
            there.core.launch(
                LaunchSpec(
                    agent="b", command=("x",), policy="support", policy_version=1, policy_text=policy,
                    tenant="other", team="sales", tags=("env=prod",),
                )
            )  # fmt: skip
            for info in there.core.known.values():
                one.attach(info)
            there.world = replace(there.world, orders_or_none=one.client)
            monkeypatch.setattr(there.core, "attempt", _through(one, monkeypatch))
            yield one
        finally:
            if one.process is not None:
                one.process.terminate()
                one.process.wait(15)
            with contextlib.suppress(OSError):
                far.shutdown(socket.SHUT_RDWR)
            for listener in one.listeners.values():
                listener.close()


def _through(gate: Gate, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """What a sandbox's helper does, through the agent's own listener."""

    def attempt(agent: str, attempts: Sequence[Attempt]) -> tuple[AttemptResult, ...]:
        monkeypatch.setattr(trying, "GATEWAY_PORT", gate.ports[agent])
        results = []
        for one in attempts:
            denied, detail = trying.TRY[one.kind](one.target)
            results.append(AttemptResult(attempt=one, denied=denied, detail=detail))
        return tuple(results)

    return attempt
