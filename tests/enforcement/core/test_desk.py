"""A real core, a real gateway and a real agent: rules that name programs, and credentials that the agent never has."""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import http.server
import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from clawback.connectors.secret_store import FileSecretStore
from clawback.enforcement.gateway.client import GatewayClient
from clawback.errors import InvalidInput, Unreachable
from clawback.model import CredentialRef, Level

pytestmark = [
    pytest.mark.kernel,
    pytest.mark.slow,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root: outer user ids and cgroups"),
    pytest.mark.skipif(not Path("/usr/bin/curl").exists(), reason="needs curl in the sandbox"),
]

SECRET = "s3cr3t-value-of-the-credential"


@dataclass
class Seen:
    server: http.server.ThreadingHTTPServer
    requests: list[tuple[str, dict[str, str]]] = field(default_factory=list)

    @property
    def port(self) -> int:
        return int(self.server.server_address[1])


@pytest.fixture
def seen() -> Iterator[Seen]:
    """A destination that answers with the headers it was sent."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            headers = {name.lower(): value for name, value in self.headers.items()}
            one.requests.append((self.path, headers))
            body = json.dumps(headers).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.send_header("X-Echo", headers.get("authorization", ""))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    one = Seen(http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler))
    thread = threading.Thread(target=one.server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    yield one
    one.server.shutdown()
    thread.join(10)
    one.server.server_close()


@pytest.fixture
def gateway(core) -> Iterator[GatewayClient]:
    code = (
        "from pathlib import Path; from clawback import log; log.configure()\n"
        "from clawback.enforcement.gateway.main import serve\n"
        f"serve(Path({str(core.state)!r}), uid=1_899_998, allow_private=('127.0.0.1/32',), peers=(),\n"
        " resolve={'good.test': '127.0.0.1', 'bad.test': '127.0.0.1'})"
    )
    process = subprocess.Popen([sys.executable, "-c", code])
    client = GatewayClient(core.state / "run" / "gateway.sock")

    def up() -> bool:
        assert process.poll() is None
        with contextlib.suppress(Unreachable):
            return bool(client.health()["status"] == "ok")
        return False

    core.until(up, why="the gateway did not come up")
    yield client
    process.send_signal(signal.SIGTERM)
    process.wait(10)


AGENT = """
import json, os, socket, subprocess, sys
PORT = int(sys.argv[1]) if len(sys.argv) > 1 else PORT_
def ask(host, headers={}, path="/", sock=None):
    sock = sock or socket.create_connection(("127.0.0.1", 3128))
    lines = "".join(f"{name}: {value}\\r\\n" for name, value in headers.items())
    head = f"GET http://{host}:{PORT}{path} HTTP/1.1\\r\\nHost: {host}:{PORT}\\r\\nConnection: close\\r\\n"
    sock.sendall(f"{head}{lines}\\r\\n".encode())
    data = b""
    while piece := sock.recv(65536):
        data += piece
    return data.decode()
def curl(*more):
    done = subprocess.run(["/usr/bin/curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", *more,
                           f"http://good.test:{PORT}/curl"], capture_output=True, text=True)
    return done.stdout
def say(*words):
    print(json.dumps(words), flush=True)
"""


def run(core, code: str, port: int, **more) -> Iterator[list]:
    """Each line that the agent says."""
    info, out = core.launch(AGENT.replace("PORT_", str(port)) + code, **more)
    text = b""
    end = time.monotonic() + 30
    with os.fdopen(out, "rb", buffering=0) as file:
        yield info
        while True:
            while b"\n" in text:
                line, _, text = text.partition(b"\n")
                yield json.loads(line)
            assert time.monotonic() < end, "the agent said no more"
            if select.select([file], [], [], 1)[0]:
                piece = file.read(65536)
                if not piece:
                    return
                text += piece


def openshell(port: int, *binaries: str, more: str = "") -> str:
    listed = ", ".join(f"{{path: {path}}}" for path in binaries)
    return f"""\
version: 1
network_policies:
  good:
    endpoints:
      - {{host: good.test, port: {port}, protocol: rest, enforcement: enforce, access: read-only}}
    binaries: [{listed}]
{more}"""


def denied(core, text: str) -> list[dict]:
    lines = (core.state / "telemetry" / "policy.jsonl").read_text().splitlines()
    return [event for event in map(json.loads, lines) if event.get("disposition_id") == 2 and text in str(event)]


def test_a_rule_is_for_the_programs_that_it_names(core, gateway, seen):
    text = openshell(seen.port, "/usr/bin/curl")
    gateway.put("test", text, author="tester", reason="test")
    lines = run(core, 'say(ask("good.test")[:12]); say(curl())', seen.port, policy_text=text)
    next(lines)
    assert next(lines) == ["HTTP/1.1 403"]
    assert next(lines) == ["200"]
    event = core.until(lambda: denied(core, "names the calling program"))[0]
    assert "/usr/bin/python3" in str(event)
    core.until(lambda: "decided by method, for /usr/bin/curl" in (core.state / "telemetry/policy.jsonl").read_text())
    assert [path for path, _ in seen.requests] == ["/curl"]


def test_what_a_named_program_starts_may_too(core, gateway, seen):
    text = openshell(seen.port, "/usr/bin/python3*")
    gateway.put("test", text, author="tester", reason="test")
    lines = run(core, 'say(ask("good.test")[:12]); say(curl())', seen.port, policy_text=text)
    next(lines)
    assert [next(lines), next(lines)] == [["HTTP/1.1 200"], ["200"]]


def test_a_connection_that_another_program_shares_is_nobodys(core, gateway, seen):
    """curl sleeps with the connection open; who speaks on it is python."""
    text = openshell(seen.port, "/usr/bin/curl")
    gateway.put("test", text, author="tester", reason="test")
    code = """
sock = socket.create_connection(("127.0.0.1", 3128))
read, write = os.pipe()
other = subprocess.Popen(["/usr/bin/curl", "-s", "-K", "-"], stdin=read, pass_fds=[sock.fileno()])
while not os.readlink(f"/proc/{other.pid}/exe").endswith("/curl"):
    pass
say(ask("good.test", sock=sock)[:12])
os.close(write)
"""
    lines = run(core, code, seen.port, policy_text=text)
    next(lines)
    assert next(lines) == ["HTTP/1.1 403"]
    assert seen.requests == []


def test_a_program_that_was_replaced_is_refused_and_reported(core, gateway, seen):
    text = openshell(seen.port, "/tmp/tool", more="filesystem_policy: {read_write: [/tmp]}\n")
    gateway.put("test", text, author="tester", reason="test")
    code = """
import shutil
shutil.copy("/usr/bin/curl", "/tmp/tool")
def tool():
    return subprocess.run(["/tmp/tool", "-s", "-o", "/dev/null", "-w", "%{http_code}",
                           f"http://good.test:{PORT}/tool"], capture_output=True, text=True).stdout
say(tool())
with open("/tmp/new", "wb") as file:
    file.write(open("/usr/bin/curl", "rb").read() + b"another")
os.chmod("/tmp/new", 0o755)
os.rename("/tmp/new", "/tmp/tool")
say(tool())
"""
    lines = run(core, code, seen.port, policy_text=text)
    next(lines)
    assert [next(lines), next(lines)] == [["200"], ["403"]]
    event = core.until(lambda: denied(core, "another file than when it was first used"))[0]
    assert event["severity_id"] == 4


PLAIN = """\
networkPolicy:
  name: test
  egress:
    allow:
      - {{name: good, domain: good.test, ports: [{port}]}}
      - {{name: bad, domain: bad.test, ports: [{port}]}}
---
apiVersion: openshell.nvidia.com/v1
kind: SandboxPolicy
metadata: {{name: test}}
spec:
  isolation: {{network: restricted}}
"""


def give(core, agent: str, port: int, value: str = SECRET, identity: str = "1") -> CredentialRef:
    ref = CredentialRef(
        kind="vault-kv", name="api", identifiers={"n": identity}, delivery="placeholder", variable="API_KEY",
        hosts=(f"http://good.test:{port}",),
    )  # fmt: skip
    FileSecretStore(core.state / "secrets").put(agent, ref, value)
    return ref


def test_the_value_goes_to_its_host_and_nowhere_else(core, gateway, seen):
    ref = give(core, "holder", seen.port)
    text = PLAIN.format(port=seen.port)
    gateway.put("test", text, author="tester", reason="test")
    basic = base64.b64encode(b"user:clawback:resolve:api").decode()
    code = f"""
mine = os.environ["API_KEY"]
say(mine, open("/run/secrets/api").read())
say(ask("good.test", {{"Authorization": "Bearer " + mine, "X-Api-Key": "openshell:resolve:env:API_KEY"}}))
say(ask("good.test", {{"Authorization": "Basic {basic}"}}))
say(ask("bad.test", {{"Authorization": "Bearer " + mine}}))
say(ask("good.test", path="/?q=" + mine))
say(ask("good.test", {{"X": "clawback:resolve:other"}}))
import time
time.sleep(100)
"""
    lines = run(core, code, seen.port, policy_text=text, agent="holder", credentials=(ref,))
    info = next(lines)
    assert next(lines) == ["clawback:resolve:api", "clawback:resolve:api"]
    bearer, basic_answer, elsewhere, in_url, unknown = (next(lines)[0] for _ in range(5))
    assert bearer.startswith("HTTP/1.1 200")
    headers = seen.requests[0][1]
    assert (headers["authorization"], headers["x-api-key"]) == (f"Bearer {SECRET}", SECRET)
    user = base64.b64encode(f"user:{SECRET}".encode()).decode()
    assert seen.requests[1][1]["authorization"] == f"Basic {user}"
    for answer in (bearer, basic_answer):
        assert SECRET not in answer
        assert user not in answer
        assert "*" * len(SECRET) in answer or "*" * 20 in answer
    assert elsewhere.startswith("HTTP/1.1 403")
    assert "is not for http://bad.test" in elsewhere
    assert in_url.startswith("HTTP/1.1 403")
    assert "stands for nothing" in unknown
    assert len(seen.requests) == 2
    assert [event["severity_id"] for event in core.until(lambda: denied(core, "is not for http"))] == [4]
    core.until(lambda: denied(core, "blotted out"))
    everything = b"".join(path.read_bytes() for path in (core.state / "telemetry").iterdir())
    everything += (core.state / "agents" / "holder" / "spec.json").read_bytes()
    assert SECRET.encode() not in everything
    assert core.client.agent(info.agent).credentials[0].delivery == "placeholder"


def test_a_new_value_counts_at_once_and_a_held_agent_has_none(core, gateway, seen):
    ref = give(core, "turner", seen.port)
    text = PLAIN.format(port=seen.port)
    gateway.put("test", text, author="tester", reason="test")
    code = """
for line in sys.stdin:
    say(ask("good.test", {"Authorization": "Bearer " + os.environ["API_KEY"]})[:12])
"""
    read, write = os.pipe()
    out_read, out = os.pipe()
    spec = core_spec(AGENT.replace("PORT_", str(seen.port)) + code, text, ref)
    try:
        core.client.launch(spec, stdio=(read, out, 2))
    finally:
        os.close(read)
        os.close(out)

    def once() -> str:
        os.write(write, b"go\n")
        text = b""
        while not text.endswith(b"\n"):
            assert select.select([out_read], [], [], 15)[0]
            text += os.read(out_read, 1000)
        return text.decode()

    assert "200" in once()
    store = FileSecretStore(core.state / "secrets")
    store.stage("turner", CredentialRef(kind="vault-kv", name="api", identifiers={"n": "2"}), "the-second-value")
    assert "200" in once()
    store.promote("turner", "api")
    assert "200" in once()
    values = [headers["authorization"] for _, headers in seen.requests]
    assert values == [f"Bearer {SECRET}", f"Bearer {SECRET}", "Bearer the-second-value"]
    core.client.contain("turner", Level.RESTRICT, reason="test", by="tester")
    assert "403" in once()
    assert len(seen.requests) == 3
    os.close(write)
    os.close(out_read)


def core_spec(code: str, text: str, ref: CredentialRef):
    from clawback.model import LaunchSpec

    return LaunchSpec(
        agent="turner", command=("/usr/bin/python3", "-u", "-c", code), policy="test", policy_version=1,
        policy_text=text, credentials=(ref,),
    )  # fmt: skip


def test_the_agent_trusts_the_gateways_certificate(core, gateway):
    text = PLAIN.format(port=1)
    gateway.put("test", text, author="tester", reason="test")
    code = """
import ssl
say(len(ssl.create_default_context().get_ca_certs()) > 0, os.environ["SSL_CERT_FILE"] == os.environ["CURL_CA_BUNDLE"],
    "Clawback gateway" in str(ssl.create_default_context().get_ca_certs()))
try:
    open(os.environ["SSL_CERT_FILE"].replace("bundle.pem", "ca.key"))
except OSError as error:
    say(type(error).__name__)
"""
    lines = run(core, code, 1, policy_text=text)
    next(lines)
    assert next(lines) == [True, True, True]
    assert next(lines) == ["FileNotFoundError"]


def test_a_tunnel_to_a_credentials_host_is_looked_into_and_no_other(core, gateway, seen):
    ref = dataclasses.replace(give(core, "tunnel", seen.port), hosts=(f"good.test:{seen.port}",))
    text = PLAIN.format(port=seen.port)
    gateway.put("test", text, author="tester", reason="test")
    code = """
def tunnel(host):
    sock = socket.create_connection(("127.0.0.1", 3128))
    sock.sendall(f"CONNECT {host}:{PORT} HTTP/1.1\\r\\nHost: {host}:{PORT}\\r\\n\\r\\n".encode())
    first = sock.recv(1000)
    try:
        sock.sendall(b"GET /through HTTP/1.0\\r\\n\\r\\n")
        return first[:12].decode(), sock.recv(1000)[:12].decode()
    except OSError as error:
        return first[:12].decode(), type(error).__name__
say(*tunnel("good.test"))
say(*tunnel("bad.test"))
"""
    lines = run(core, code, seen.port, policy_text=text, agent="tunnel", credentials=(ref,))
    next(lines)
    looked, blind = next(lines), next(lines)
    assert looked[0] == blind[0] == "HTTP/1.1 200"
    assert (looked[1], blind[1]) == ("ConnectionResetError", "HTTP/1.0 200")
    assert [path for path, _ in seen.requests] == ["/through"]
    core.until(lambda: denied(core, "looks inside this tunnel"))


@pytest.mark.parametrize("hosts", [(), ("*.com",), ("*",), ("api.test:99999",), ("api.test/x",), ("*.co.uk",)])
def test_a_placeholder_that_could_go_nowhere_or_anywhere_is_refused(core, hosts):
    ref = dataclasses.replace(give(core, "wide", 80), hosts=hosts)
    with pytest.raises(InvalidInput, match="hosts"):
        core.launch("pass", agent="wide", credentials=(ref,))


def test_nobody_else_is_given_the_desk(core):
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(str(core.state / "run" / "core.sock"))
        sock.sendall(b'{"ask": "secret", "instance": "x", "name": "y", "id": 1}\n')
        assert b"400" in sock.recv(1000)
