"""Policies of a running gateway: the client, edits of the file, restoring, and who may speak to it."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from clawback.enforcement.gateway.client import GatewayClient
from clawback.errors import InvalidInput, NotFound, Refused, Unreachable
from clawback.model import Attempt

pytestmark = pytest.mark.slow


def reaches(gateway, sink, host: str) -> bool:
    raw = f"GET http://{host}:{sink.port}/ HTTP/1.1\r\nHost: {host}:{sink.port}\r\nConnection: close\r\n\r\n"
    return gateway.send(raw.encode()).startswith(b"HTTP/1.1 200")


def changes(gateway) -> list[dict]:
    return gateway.events(5019)


def test_the_client_keeps_versions(gateway, sink):
    client = gateway.client
    first = client.active("test")
    assert (first.version, first.known_good, first.author) == (1, True, "tester")
    wide = gateway.policy("domain: good.test", "domain: other.test")
    second = client.put("test", wide, author="mallory", reason="more")
    assert (second.version, client.put("test", wide, author="x", reason="y")) == (2, second)
    assert "+      - {domain: other.test}" in second.diff
    assert client.read("test", 2) == wide
    restored = client.restore("test", 1, author="responder", reason="incident", incident="INC-1")
    assert (restored.version, restored.sha256, restored.incident) == (3, first.sha256, "INC-1")
    assert client.restore("test", 1, author="responder", reason="again") == restored
    assert client.active("test") == restored
    assert [one.version for one in client.versions("test")] == [1, 2, 3]
    assert client.mark_known_good("test", 3, author="a").known_good
    assert client.active("test").known_good
    allowed = client.decide("test", Attempt(kind="http", target=f"GET http://good.test:{sink.port}/"))
    assert (allowed.allowed, allowed.rule, allowed.policy_version) == (True, "plain", 3)
    assert not client.decide("test", Attempt(kind="connect", target="good.test:443")).allowed
    assert not client.decide("test", Attempt(kind="connect", target="no port")).allowed
    metrics = gateway_metrics(gateway)
    assert 'clawback_gateway_policy_version{policy="test"} 3.0' in metrics


def gateway_metrics(gateway) -> str:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(str(gateway.client.path))
        sock.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
        return sock.makefile("rb").read().decode()


def test_errors_keep_their_kind(gateway, state):
    client = gateway.client
    for call, kind in (
        (lambda: client.put("test", "a: 1", author="a", reason="r"), InvalidInput),
        (lambda: client.put("../x", "", author="a", reason="r"), InvalidInput),
        (lambda: client.put("test", "x", author="", reason="r"), InvalidInput),
        (lambda: client.versions("none"), NotFound),
        (lambda: client.read("test", 99), NotFound),
        (lambda: client.active("none"), NotFound),
        (lambda: client.decide("none", Attempt(kind="connect", target="a.test:1")), NotFound),
        (lambda: client.decide("test", Attempt(kind="open", target="/etc")), InvalidInput),
        (lambda: GatewayClient(state / "nothing.sock").health(), Unreachable),
    ):
        with pytest.raises(kind):
            call()


def test_an_edited_file_is_taken_while_agents_run(gateway, sink):
    assert reaches(gateway, sink, "good.test")
    file = gateway.state / "policies" / "test" / "current.yaml"
    file.write_text(gateway.policy("domain: other.test"))
    gateway.until(lambda: gateway.client.active("test").version == 2)
    assert gateway.client.active("test").author == f"file:uid={file.stat().st_uid}"
    assert not reaches(gateway, sink, "good.test")
    assert reaches(gateway, sink, "other.test")
    file.write_text("networkPolicy: {name: test, egress: {allow: [{domain: '*'}]}}\n")
    refused = gateway.until(lambda: [e for e in changes(gateway) if e["disposition_id"] == 2])
    assert "allows every host" in json.dumps(refused)
    assert gateway.client.active("test").version == 2
    assert reaches(gateway, sink, "other.test")
    gateway.client.restore("test", 1, author="responder", reason="back")
    assert reaches(gateway, sink, "good.test")
    assert "domain: '*'" in (file.parent / "refused.yaml").read_text()
    assert len([e for e in changes(gateway) if e["disposition_id"] == 2]) == 1


def test_versions_of_another_process_are_taken(gateway, sink):
    code = (
        "import sys; from pathlib import Path; from clawback.enforcement.policy.store import PolicyStore\n"
        "PolicyStore(Path(sys.argv[1])).put('test', sys.argv[2], author='cli', reason='direct')"
    )
    text = gateway.policy("domain: other.test")
    subprocess.run([sys.executable, "-c", code, str(gateway.state / "policies"), text], check=True)
    gateway.until(lambda: gateway.client.active("test").author == "cli")


def test_a_restarted_gateway_decides_by_the_same_version(gateway, sink, start):
    gateway.client.put("test", gateway.policy("domain: other.test"), author="a", reason="r")
    assert gateway.stop() == 0
    again = start()
    assert again.client.active("test").version == 2
    assert reaches(again, sink, "other.test")


def test_one_state_folder_has_one_gateway(gateway):
    code = (
        "import sys; from pathlib import Path; from clawback.enforcement.gateway.main import serve\n"
        "serve(Path(sys.argv[1]), uid=None, resolve={}, allow_private=())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(gateway.state)], capture_output=True, timeout=20, check=False
    )
    assert b"another gateway serves" in done.stderr
    assert gateway.client.health()["status"] == "ok"


def test_what_is_not_an_attachment_is_refused(gateway):
    with socket.socket() as plain, socket.create_server(("127.0.0.1", 0)) as listener:
        good = {"agent": "a", "instance": "i", "policy": "p"}
        for line, fds in (
            (b"not json\n", []),
            (b"[]\n", []),
            (good, []),
            (good, [plain.fileno()]),
            (good, [sys.stderr.fileno() if sys.stderr.isatty() else os.open("/dev/null", os.O_RDONLY)]),
            (good | {"more": 1}, [listener.fileno()]),
            (good | {"agent": ""}, [listener.fileno()]),
            (good | {"agent": "a\nb"}, [listener.fileno()]),
            (good, [listener.fileno()] * 3),
        ):
            reply = gateway.say(line, fds)
            assert reply["ok"] is False, line
            assert reply["error"]
        for fd in fds:
            with contextlib.suppress(OSError):
                os.fstat(fd)
    assert [one["agent"] for one in gateway.client.health()["agents"]] == ["rogue"]


def test_a_detached_agent_has_no_way_out(gateway):
    assert gateway.say({"detach": "rogue-1"}) == {"ok": True}
    with pytest.raises(OSError):
        gateway.dial().close()
    assert gateway.client.health()["agents"] == []


def test_new_listeners_replace_old_ones_of_the_same_instance(gateway, sink):
    gateway.port, gateway.port6 = gateway.attach("rogue", "rogue-1", "test")
    assert reaches(gateway, sink, "good.test")
    assert len(gateway.client.health()["agents"]) == 1


@pytest.mark.skipif(os.geteuid() != 0, reason="becoming another user needs root")
def test_as_root_it_becomes_an_unprivileged_user(start, sink):
    gateway = start(text="networkPolicy:\n  name: test\n  egress:\n    allow:\n      - {domain: good.test}\n")
    status = Path(f"/proc/{gateway.process.pid}/status").read_text()
    fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    assert fields["Uid"].split() == ["1899999"] * 4
    assert fields["Gid"].split() == ["1899999"] * 4
    assert fields["Groups"].strip() == ""
    assert int(fields["CapEff"], 16) == int(fields["CapPrm"], 16) == 0
    assert fields["NoNewPrivs"].strip() == "1"
    assert reaches(gateway, sink, "good.test")
    file = gateway.state / "policies" / "test" / "current.yaml"
    assert file.stat().st_uid == 1_899_999
    file.write_text("networkPolicy:\n  name: test\n  egress:\n    allow:\n      - {domain: other.test}\n")
    gateway.until(lambda: gateway.client.active("test").version == 2)
    log = gateway.state / "telemetry" / "policy.jsonl"
    log.rename(log.with_name("policy.jsonl.1"))
    assert not reaches(gateway, sink, "good.test")
    gateway.until(log.exists)


def test_it_serves_as_whoever_started_it(start, sink):
    gateway = start(uid=None, text="networkPolicy:\n  name: test\n  egress:\n    allow:\n      - {domain: good.test}\n")
    assert gateway.client.health()["uid"] == os.getuid()
    assert reaches(gateway, sink, "good.test")


@pytest.mark.skipif(os.geteuid() != 0, reason="speaking as another user needs root")
def test_other_users_are_refused(gateway, state):
    gateway.until(lambda: state.chmod(0o755) is None)
    code = (
        "import os, sys; from pathlib import Path; from clawback.enforcement.gateway.client import GatewayClient\n"
        "import json, socket\n"
        "os.setgroups([]); os.setresgid(65534, 65534, 65534); os.setresuid(65534, 65534, 65534)\n"
        "try:\n    GatewayClient(Path(sys.argv[1])).health()\n"
        "except Exception as error:\n    print(type(error).__name__)\n"
        "try:\n    socket.socket(socket.AF_UNIX).connect(sys.argv[2])\n"
        "except Exception as error:\n    print(type(error).__name__)\n"
    )
    paths = [str(gateway.client.path), str(state / "run" / "gateway-attach.sock")]
    done = subprocess.run([sys.executable, "-c", code, *paths], capture_output=True, text=True, check=True)
    assert done.stdout.split() == [Refused.__name__, "PermissionError"], done
