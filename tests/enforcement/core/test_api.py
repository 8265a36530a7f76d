"""The API's edge: who may ask, and what is refused before it reaches anything."""

from __future__ import annotations

import http.client
import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from clawback.enforcement.core.client import CoreClient
from clawback.errors import InvalidInput, Unreachable
from clawback.model import Level

pytestmark = pytest.mark.kernel

CALL_AS = """
import http.client, os, socket, sys
os.setgroups([]); os.setgid(int(sys.argv[2])); os.setuid(int(sys.argv[2]))
class Connection(http.client.HTTPConnection):
    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX); self.sock.connect(sys.argv[1])
connection = Connection("core")
for call in sys.argv[3:]:
    method, path = call.split(" ")
    connection.request(method, path, b"{}" if method == "POST" else None)
    response = connection.getresponse(); response.read(); print(response.status)
"""


@pytest.fixture
def allowing(make_core):
    core = make_core({65534: ("agents", "contain")})
    core.start()
    return core


def call_as(core, uid: int, *calls: str) -> list[int]:
    path = str(core.state / "run" / "core.sock")
    done = subprocess.run(
        ["/usr/bin/python3", "-c", CALL_AS, path, str(uid), *calls],
        capture_output=True,
        text=True,
        check=True,
        timeout=20,
    )
    return [int(line) for line in done.stdout.split()]


def send(core, method: str, path: str, body: bytes = b"") -> tuple[int, dict]:
    connection = http.client.HTTPConnection("core", timeout=10)
    connection.sock = socket.socket(socket.AF_UNIX)
    connection.sock.settimeout(10)
    connection.sock.connect(str(core.state / "run" / "core.sock"))
    connection.request(method, path, body)
    response = connection.getresponse()
    answer = json.loads(response.read())
    connection.close()
    return response.status, answer


def test_a_user_may_do_what_is_listed_and_nothing_else(allowing):
    calls = (
        "GET /agents",
        "POST /agents/nobody/contain",
        "POST /agents/nobody/release",
        "GET /healthz",
        "POST /agents",
    )
    assert call_as(allowing, 65534, *calls) == [200, 400, 403, 403, 403]


def test_a_user_who_is_not_listed_may_do_nothing(allowing):
    calls = (
        "GET /agents",
        "GET /healthz",
        "GET /metrics",
        "POST /agents/nobody/contain",
        "POST /agents/nobody/release",
    )
    assert call_as(allowing, 65533, *calls) == [403] * 5


def test_an_agents_own_user_is_refused_like_any_stranger(core):
    assert call_as(core, core.uid_base, "GET /agents", "POST /agents/a/release") == [403, 403]


def test_strangers_cannot_use_up_the_connections(core):
    path = str(core.state / "run" / "core.sock")
    hold = (
        "import os, socket, sys, time\nos.setuid(65533)\nheld = []\n"
        "for _ in range(300):\n"
        "    one = socket.socket(socket.AF_UNIX); one.connect(sys.argv[1]); held.append(one)\n"
        "print('held', flush=True); sys.stdin.read()\n"
    )
    stranger = subprocess.Popen(["/usr/bin/python3", "-c", hold, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        assert stranger.stdout.readline() == b"held\n"
        fresh = CoreClient(core.state / "run" / "core.sock")
        assert fresh.health()["status"] == "ok"
        folder = Path(f"/proc/{core.process.pid}/fd")
        core.until(lambda: len(list(folder.iterdir())) < 100, why="the strangers' connections stay open")
        fresh.close()
    finally:
        stranger.communicate()


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/agents/a/contain", b""),
        ("/agents/a/contain", b"{"),
        ("/agents/a/contain", b"[]"),
        ("/agents/a/contain", b"\xff\xfe"),
        ("/agents/a/contain", b'{"level": "freeze", "reason": "r", "by": "b", "extra": 1}'),
        ("/agents/a/contain", b'{"level": "frozen", "reason": "r", "by": "b"}'),
        ("/agents/a/contain", b'{"level": 9, "reason": "r", "by": "b"}'),
        ("/agents/a/contain", b'{"level": true, "reason": "r", "by": "b"}'),
        ("/agents/a/contain", b'{"level": "freeze", "reason": 1, "by": "b"}'),
        ("/agents/a/contain", json.dumps({"level": 1, "reason": "x" * 5000, "by": "b"}).encode()),
        ("/agents/a/contain", b'{"a":' * 5000),
        ("/agents", b'{"spec": {"agent": "a"}}'),
        (
            "/agents",
            b'{"spec": {"agent": "a", "command": [], "policy": "", "policy_version": 1, "policy_text": "", "x": 1}}',
        ),
        ("/agents/a/attempt", b'{"attempts": [{"kind": "open", "target": "/", "more": 1}]}'),
        ("/agents/a/attempt", json.dumps({"attempts": [{"kind": "open", "target": "/"}] * 65}).encode()),
        ("/agents/a/release", b'{"levels": ["freeze", "melt"], "reason": "", "by": ""}'),
    ],
)
def test_bodies_that_are_not_exactly_right(shared, path, body):
    status, answer = send(shared, "POST", path, body)
    assert (status, answer["type"]) == (400, "InvalidInput")
    assert set(answer) == {"error", "hint", "type"}


def test_a_body_without_end_is_cut_short(shared):
    status, answer = send(shared, "POST", "/agents/a/contain", b" " * (5 << 20))
    assert (status, answer["type"]) == (400, "InvalidInput")
    assert "bytes" in answer["error"]


@pytest.mark.parametrize(
    ("method", "path"), [("GET", "/"), ("GET", "/nothing"), ("DELETE", "/agents/a"), ("GET", "/agents/a/b/c")]
)
def test_calls_that_do_not_exist(shared, method, path):
    assert send(shared, method, path)[0] == 404


def test_no_answer_repeats_what_was_sent(shared):
    body = json.dumps({"level": "freeze", "reason": "r", "by": 7, "secret-value-1234": "secret-value-5678"}).encode()
    _, answer = send(shared, "POST", "/agents/a/contain", body)
    assert "secret-value-5678" not in json.dumps(answer)


def test_stdio_tokens_work_once_and_for_their_owner_only(shared, make_spec):
    from clawback.enforcement.core.stdio import send_stdio

    fds = shared.state / "run" / "core-fds.sock"
    null = os.open("/dev/null", os.O_RDWR)
    token = send_stdio(fds, (null, null, null))
    spec = make_spec("pass")
    body = json.dumps(
        {
            "spec": {
                "agent": spec.agent,
                "command": list(spec.command),
                "policy": spec.policy,
                "policy_version": 1,
                "policy_text": spec.policy_text,
            },
            "stdio": token,
        }
    ).encode()
    os.close(null)
    assert send(shared, "POST", "/agents", body)[0] == 201
    shared.client.wait(spec.agent)
    status, answer = send(shared, "POST", "/agents", body)
    assert (status, answer["type"]) == (404, "NotFound")


def test_a_stranger_passes_no_descriptors(shared):
    code = (
        "import os, sys; from pathlib import Path\n"
        "from clawback.enforcement.core.stdio import send_stdio\n"
        "from clawback.errors import ClawbackError\n"
        "os.setuid(65533)\n"
        "try: send_stdio(Path(sys.argv[1]), (0, 1, 2))\n"
        "except ClawbackError as error: print(type(error).__name__)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(shared.state / "run" / "core-fds.sock")],
        capture_output=True,
        text=True,
        check=False,
        timeout=20,
    )
    assert done.stdout.strip() in {"Refused", "Unreachable"}, done.stderr


def test_a_client_without_a_core(tmp_path):
    with pytest.raises(Unreachable, match="does not answer"):
        CoreClient(tmp_path / "core.sock").agents()


def test_a_client_goes_on_after_the_core_was_restarted(core):
    assert core.client.agents() == ()
    core.end()
    core.start()
    assert core.client.agents() == ()


def test_names_that_lead_elsewhere_do_not(shared):
    with pytest.raises(InvalidInput):
        shared.client.agent("")
    for name in ("..", "."):
        with pytest.raises(InvalidInput):
            shared.client.contain(name, Level.FREEZE, reason="r", by="b")


def test_a_verb_that_does_not_exist_is_refused_at_start(state):
    from clawback.enforcement.core.main import serve

    with pytest.raises(InvalidInput, match=r"core\.allow\.7"):
        serve(state, allow={7: ("containt",)})


def test_a_state_folder_with_too_long_a_path_is_refused(state):
    from clawback.enforcement.core.main import serve

    with pytest.raises(InvalidInput, match="path"):
        serve(state / ("x" * 100))


def test_a_body_that_never_comes_is_given_up_and_others_are_served(shared):
    path = str(shared.state / "run" / "core.sock")
    slow = [socket.socket(socket.AF_UNIX) for _ in range(20)]
    try:
        for one in slow:
            one.settimeout(20)
            one.connect(path)
            one.sendall(b"POST /agents/a/contain HTTP/1.1\r\nHost: core\r\nContent-Length: 100\r\n\r\n{")
        assert shared.client.health()["status"] == "ok"
        answer = slow[0].recv(65536)
        assert answer.startswith(b"HTTP/1.1 400"), answer
        assert b"within" in answer
    finally:
        for one in slow:
            one.close()


def test_a_user_with_a_right_cannot_use_up_the_connections_either(allowing):
    path = str(allowing.state / "run" / "core.sock")
    hold = (
        "import os, socket, sys, time\nos.setuid(65534)\nheld = []\n"
        "for _ in range(300):\n"
        "    one = socket.socket(socket.AF_UNIX); one.connect(sys.argv[1]); held.append(one)\n"
        "print('held', flush=True); sys.stdin.read()\n"
    )
    user = subprocess.Popen(["/usr/bin/python3", "-c", hold, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        assert user.stdout.readline() == b"held\n"
        folder = Path(f"/proc/{allowing.process.pid}/fd")
        allowing.until(lambda: len(list(folder.iterdir())) < 150, why="more than 64 connections of one user stay open")
        assert allowing.client.health()["status"] == "ok"
    finally:
        user.communicate()
    allowing.until(lambda: call_as(allowing, 65534, "GET /agents") == [200], why="the count never went down")


def test_one_user_has_so_many_calls_under_way_and_no_more():
    from clawback.enforcement.core.calls import Calls

    calls = Calls()
    held = [calls.one_of(7, "evidence") for _ in range(4)]
    for one in held:
        one.__enter__()
    with pytest.raises(Unreachable, match="under way"), calls.one_of(7, "evidence"):
        pass
    with calls.one_of(8, "evidence"), calls.one_of(7, "contain"), calls.one_of(0, "evidence"):
        pass
    held[0].__exit__(None, None, None)
    with calls.one_of(7, "evidence"):
        pass
