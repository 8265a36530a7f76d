"""A real sandboxed agent under orders: blocked in the middle of what it does, and released, by the action itself."""

from __future__ import annotations

import contextlib
import json
import os
import select
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from clawback.action import Context
from clawback.actions import network_block_destination, tool_deny
from clawback.enforcement.gateway.client import GatewayClient
from clawback.errors import Unreachable
from clawback.model import (
    EgressOrder,
    Enforcement,
    Incident,
    IncidentStatus,
    Level,
    Orchestration,
    OrderKind,
    Phase,
    Scope,
    ScopeKind,
    Severity,
)
from clawback.world import World

pytestmark = pytest.mark.kernel

AGENT = """
import json, socket, time
PORT = PORT_
def say(*words):
    print(json.dumps(words), flush=True)
def open_(line, more=b""):
    sock = socket.create_connection(("127.0.0.1", 3128))
    sock.sendall(line.encode() + more)
    return sock
tunnel = open_(f"CONNECT good.test:{PORT} HTTP/1.1\\r\\nHost: good.test:{PORT}\\r\\n\\r\\n")
say("tunnel", tunnel.recv(1000).decode()[9:12])
tunnel.setblocking(False)
while True:
    try:
        head = f"GET http://good.test:{PORT}/ HTTP/1.1\\r\\nHost: good.test:{PORT}\\r\\n"
        ask = open_(head + "Connection: close\\r\\n\\r\\n")
        data = b""
        while piece := ask.recv(65536):
            data += piece
        said = data.partition(b"\\r\\n\\r\\n")[2].decode()
        say("got", data.decode()[9:12], json.loads(said).get("rule", "") if said.startswith("{") else said)
    except OSError as error:
        say("got", "error", str(error))
    if tunnel is not None:
        try:
            tunnel.recv(1)
        except BlockingIOError:
            pass
        except OSError as error:
            say("tunnel", type(error).__name__)
            tunnel = None
    time.sleep(0.02)
"""


def policy(port: int) -> str:
    return f"""\
apiVersion: openshell.nvidia.com/v1
kind: SandboxPolicy
metadata: {{name: test}}
spec:
  isolation: {{network: restricted}}
---
networkPolicy:
  name: test
  egress:
    allow:
      - {{domain: good.test, ports: [{port}]}}
"""


@pytest.fixture
def far() -> Iterator[int]:
    """The port of a destination that says hi, and leaves tunnels alone."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        kept = []

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    sock, _ = server.accept()
                    kept.append(sock)
                    threading.Thread(target=answer, args=(sock,), daemon=True).start()

        def answer(sock: socket.socket) -> None:
            with contextlib.suppress(OSError):
                if sock.recv(65536):
                    sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nhi")
                sock.close()

        threading.Thread(target=serve, daemon=True).start()
        yield server.getsockname()[1]
        with contextlib.suppress(OSError):
            server.shutdown(socket.SHUT_RDWR)


class Ways:
    """The gateway's process, to be killed and started again on one state folder."""

    def __init__(self, core: Any) -> None:
        self.core = core
        self.client = GatewayClient(core.state / "run" / "gateway.sock")
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        code = (
            "from pathlib import Path; from clawback import log; log.configure()\n"
            "from clawback.enforcement.gateway.main import serve\n"
            f"serve(Path({str(self.core.state)!r}), uid=1_899_998, allow_private=('127.0.0.1/32',), peers=(),\n"
            " resolve={'good.test': '127.0.0.1'})"
        )
        self.process = subprocess.Popen([sys.executable, "-c", code])

        def up() -> bool:
            assert self.process is not None
            assert self.process.poll() is None
            with contextlib.suppress(Unreachable):
                return bool(self.client.health()["status"] == "ok")
            return False

        self.core.until(up, seconds=30, why="the gateway did not come up")

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait(10)


@pytest.fixture
def gateway(core: Any) -> Iterator[Ways]:
    ways = Ways(core)
    ways.start()
    yield ways
    ways.kill()


class Said:
    """What the agent says, line by line."""

    def __init__(self, descriptor: int) -> None:
        self._file = os.fdopen(descriptor, "rb", buffering=0)
        self._text = b""
        self.tunnel: list[str] = []

    def next(self) -> list[str]:
        end = time.monotonic() + 30
        while True:
            while b"\n" in self._text:
                line, _, self._text = self._text.partition(b"\n")
                words = json.loads(line)
                if words[0] != "tunnel":
                    return list(words[1:])
                self.tunnel.append(words[1])
            assert time.monotonic() < end, "the agent said no more"
            if select.select([self._file], [], [], 1)[0]:
                piece = self._file.read(65536)
                assert piece, "the agent ended"
                self._text += piece

    def until(self, *words: str) -> None:
        end = time.monotonic() + 30
        while self.next() != list(words):
            assert time.monotonic() < end, f"the agent did not say {words}"

    def close(self) -> None:
        self._file.close()


def context(core: Any, client: GatewayClient, agent: str) -> Context:
    nothing: Any = SimpleNamespace()
    world = World(core=core.client, policies=client, secrets=nothing, tickets=nothing, orders_or_none=client)
    incident = Incident(
        id="INC-20260101-KERNEL", agent=agent, instance="", status=IncidentStatus.OPEN, phase=Phase.CONTAIN,
        severity=Severity.HIGH, playbook="x", drill=True, orchestration=Orchestration.NONE, opened_ns=1,
    )  # fmt: skip
    return Context(incident=incident, world=world, actor="tester")


@pytest.mark.parametrize("scope", ["agent", "team"])
def test_an_agent_is_blocked_in_the_middle_and_released(core: Any, gateway: Ways, far: int, scope: str) -> None:
    text = policy(far)
    gateway.client.put("test", text, author="tester", reason="test")
    info, out = core.launch(AGENT.replace("PORT_", str(far)), policy_text=text, team="support")
    said = Said(out)
    said.until("200", "hi")
    assert said.tunnel == ["200"]
    elsewhere = EgressOrder(
        id="elsewhere",
        kind=OrderKind.DESTINATION,
        scope=Scope(ScopeKind.TEAM, "sales"),
        reason="x",
        by="y",
        host="good.test",
    )
    assert gateway.client.place(elsewhere)[1] == 0, "the core said which team it is of"
    said.until("200", "hi")
    ctx = context(core, gateway.client, info.agent)
    action = network_block_destination.ACTION
    of = info.agent if scope == "agent" else "support"
    params = action.params(scope=scope, of=of, host="good.test", reason="exfiltration")
    captured = action.capture(ctx, params)
    outcome = action.apply(ctx, params, captured)
    assert outcome["connections_reset"] >= 1
    rule = f"order:{captured['order']}"
    said.until("403", rule)
    core.until(lambda: said.next() and said.tunnel[1:] == ["ConnectionResetError"], why="the tunnel did not end")
    seen = action.verify(ctx, params, captured, outcome)
    assert (seen.verified, seen.enforcement) == (True, Enforcement.FULL), seen.proof
    assert "from inside 1 of 1 agents" in seen.proof
    assert rule in seen.proof

    gateway.kill()
    gateway.start()
    said.until("403", rule)
    core.until(lambda: action.verify(ctx, params, captured, outcome).enforcement is Enforcement.FULL)

    core.client.contain(info.agent, Level.FREEZE, reason="test", by="tester")
    held = action.verify(ctx, params, captured, outcome)
    assert (held.verified, held.enforcement) == (True, Enforcement.PARTIAL)
    assert "held at freeze" in held.proof
    core.client.release(info.agent, reason="test", by="tester")

    assert action.revert
    assert action.verify_reverted
    action.revert(ctx, params, captured)
    assert action.verify_reverted(ctx, params, captured).verified
    said.until("200", "hi")
    core.client.contain(info.agent, Level.STOP, reason="over", by="tester")
    said.close()


def test_a_tool_is_tried_from_inside_with_a_call_in_it(core: Any, gateway: Ways, far: int) -> None:
    text = policy(far)
    gateway.client.put("test", text, author="tester", reason="test")
    info, out = core.launch("import time; time.sleep(300)", policy_text=text)
    os.close(out)
    core.until(lambda: any(one["instance"] == info.instance for one in gateway.client.health()["agents"]))
    ctx = context(core, gateway.client, info.agent)
    action = tool_deny.ACTION
    params = action.params(of=info.agent, tool="delete_*", host="good.test", port=far, reason="rogue")
    captured = action.capture(ctx, params)
    outcome = action.apply(ctx, params, captured)
    seen = action.verify(ctx, params, captured, outcome)
    assert (seen.verified, seen.enforcement) == (True, Enforcement.FULL), seen.proof
    gateway.client.lift(captured["order"], reason="sabotage", by="tester")
    assert not action.verify(ctx, params, captured, outcome).verified
    core.client.contain(info.agent, Level.STOP, reason="over", by="tester")
