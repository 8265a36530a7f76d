"""An agent in a network namespace of its own, isolated by the kernel in the middle of an upload through the gateway."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from clawback.enforcement.quarantine import isolate
from clawback.enforcement.sandbox.record import Sandbox
from clawback.model import Enforcement

pytestmark = [
    pytest.mark.kernel,
    pytest.mark.slow,
    pytest.mark.skipif(os.geteuid() != 0, reason="a network namespace in which sockets are destroyed needs root"),
]

AGENT = """
import json, os, socket, sys
from clawback.enforcement.kernel.libc import CLONE_NEWNET, unshare
from clawback.enforcement.kernel.namespaces import loopback
attach, port, how = sys.argv[1], int(sys.argv[2]), sys.argv[3]
unshare(CLONE_NEWNET)
loopback(up=True)
listener = socket.create_server(("", 3128), family=socket.AF_INET6, dualstack_ipv6=True)
with socket.socket(socket.AF_UNIX) as core:
    core.connect(attach)
    line = json.dumps({"agent": "isolated", "instance": "isolated-1", "policy": "test"}) + "\\n"
    socket.send_fds(core, [line.encode()], [listener.fileno()])
    assert json.loads(core.recv(1000)) == {"ok": True}
listener.close()

def head(method, more):
    place = f"good.test:{port}"
    return f"{method} http://{place}/ HTTP/1.1\\r\\nHost: {place}\\r\\n{more}\\r\\n"

def ask(text):
    sock = socket.create_connection(("127.0.0.1", 3128), timeout=10)
    sock.sendall(text.encode())
    return sock

def upload():
    if how == "connect":
        sock = ask(f"CONNECT other.test:{port} HTTP/1.1\\r\\nHost: other.test:{port}\\r\\n\\r\\n")
        assert b" 200 " in sock.recv(1000)
        while True:
            sock.sendall(b"x" * 65536)
    sock = ask(head("POST", "Transfer-Encoding: chunked\\r\\n"))
    while True:
        sock.sendall(b"10000\\r\\n" + b"x" * 65536 + b"\\r\\n")

for line in sys.stdin:
    try:
        if line.strip() == "upload":
            upload()
        else:
            print(ask(head("GET", "")).recv(1000)[9:12].decode(), flush=True)
    except OSError as error:
        print(type(error).__name__, flush=True)
"""


def box(pid: int) -> Sandbox:
    ticks = int(Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[19])
    return Sandbox(
        agent="isolated", instance="isolated-1", pid=pid, start_ticks=ticks, shim_pid=pid, shim_start_ticks=ticks,
        uid=0, cgroup="", folder="", policy="test", policy_version=1, command=("agent",), started_ns=0,
    )  # fmt: skip


@pytest.mark.parametrize("how", ["connect", "post"])
def test_isolation_ends_an_upload_at_its_destination_and_release_opens_the_way(gateway, sink, how):
    sink.reply = b""
    attach = str(gateway.state / "run" / "gateway-attach.sock")
    agent = subprocess.Popen(
        [sys.executable, "-c", AGENT, attach, str(sink.port), how],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert agent.stdin
    assert agent.stdout
    try:
        agent.stdin.write("upload\n")
        agent.stdin.flush()
        gateway.until(lambda: sink.received > 20_000_000, seconds=60)
        result = isolate.apply(box(agent.pid))
        # The pipes to this test are ways out too, and named; its network is gone.
        assert result.enforcement is Enforcement.PARTIAL, result
        assert result.counts["uncut"] == 0
        assert result.counts["leads_out"] >= 2
        gateway.until(lambda: sink.ended == ["reset"])
        assert agent.stdout.readline().strip() in ("ConnectionAbortedError", "ConnectionResetError", "BrokenPipeError")
        closed = gateway.until(
            lambda: [e for e in gateway.events(4001) if e["activity_id"] == 2 and "isolated" in str(e)],
        )
        assert len(closed) == 1
        received = sink.received
        agent.stdin.write("get\n")
        agent.stdin.flush()
        assert agent.stdout.readline().strip() == "OSError"  # ENETUNREACH
        assert sink.received == received

        sink.reply, sink.when = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", b"GET "
        sink.data = b""
        assert isolate.release(box(agent.pid)).enforcement is Enforcement.NONE
        agent.stdin.write("get\n")
        agent.stdin.flush()
        assert agent.stdout.readline().strip() == "200"
    finally:
        agent.kill()
        agent.wait()
        agent.stdin.close()
        agent.stdout.close()
