"""Listeners reach the gateway, again after it was restarted, and are taken back when an agent ends."""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from clawback.enforcement.core.gateway_link import Attachment, GatewayLink

ASK = """
import time, urllib.request, urllib.error
while True:
    try:
        urllib.request.urlopen("http://not-allowed.example/", timeout=0.5).read()
        print("open")
    except urllib.error.HTTPError as error:
        print("gateway", error.code)
    except OSError as error:
        print("silent", type(error).__name__)
    time.sleep(0.02)
"""


class FakeGateway:
    """The other end of the protocol, as the gateway's attach module describes it."""

    def __init__(self, path: Path) -> None:
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen()
        self._listener.settimeout(10)
        self.link, _ = self._listener.accept()
        self.link.settimeout(10)

    def hear(self, answer: dict | None = None) -> tuple[dict, list[int]]:
        data, fds, _, _ = socket.recv_fds(self.link, 65536, 8)
        self.link.sendall(json.dumps(answer or {"ok": True}).encode() + b"\n")
        return json.loads(data), fds

    def close(self) -> None:
        self.link.close()
        self._listener.close()


@pytest.fixture
def link(state):
    made = GatewayLink(state / "attach.sock")
    made.start()
    yield made
    made.close()


def listener() -> int:
    one = socket.socket()
    one.bind(("127.0.0.1", 0))
    one.listen()
    return one.detach()


def attachment(instance: str) -> Attachment:
    return Attachment(agent="a", instance=instance, policy="p", listeners=(listener(),))


def until(what):
    import time

    end = time.monotonic() + 10
    while not what():
        assert time.monotonic() < end
        time.sleep(0.005)


def test_everything_is_delivered_again_to_a_new_gateway(state, link):
    link.add(attachment("i1"))
    first = FakeGateway(state / "attach.sock")
    message, fds = first.hear()
    assert message == {"agent": "a", "instance": "i1", "policy": "p"}
    assert len(fds) == 1
    until(lambda: link.attached("i1"))
    link.add(attachment("i2"))
    assert first.hear()[0]["instance"] == "i2"
    (state / "attach.sock").unlink()
    first.close()
    until(lambda: not link.attached("i1"))
    second = FakeGateway(state / "attach.sock")
    assert {second.hear()[0]["instance"] for _ in range(2)} == {"i1", "i2"}
    until(lambda: link.attached("i1") and link.attached("i2"))
    second.close()


def test_what_orders_go_by_is_said_as_far_as_it_is_known(state, link):
    known = {"tenant": "acme", "team": "", "tags": ("env=prod",)}
    link.add(Attachment(agent="a", instance="i1", policy="p", listeners=(listener(),), **known))
    gateway = FakeGateway(state / "attach.sock")
    message, _ = gateway.hear()
    assert message == {
        "agent": "a",
        "instance": "i1",
        "policy": "p",
        "tenant": "acme",
        "team": "",
        "tags": ["env=prod"],
    }
    gateway.close()


def test_an_ended_instance_is_detached_and_its_listener_closed(state, link):
    mine = attachment("i1")
    link.add(mine)
    gateway = FakeGateway(state / "attach.sock")
    _, (theirs,) = gateway.hear()
    until(lambda: link.attached("i1"))
    link.remove("i1")
    assert gateway.hear()[0] == {"detach": "i1"}
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(mine.listeners[0])
    os.close(theirs)
    gateway.close()


def test_a_suspended_instance_is_taken_from_the_gateway_and_given_back(state, link):
    link.add(attachment("i1"))
    gateway = FakeGateway(state / "attach.sock")
    gateway.hear()
    until(lambda: link.attached("i1"))
    with ThreadPoolExecutor(1) as other:
        suspended = other.submit(link.suspend, "i1")
        assert gateway.hear()[0] == {"detach": "i1"}
        assert suspended.result(10)
    assert link.suspended("i1")
    link.resume("i1")
    message, fds = gateway.hear()
    assert (message["instance"], len(fds)) == ("i1", 1)
    gateway.close()


def test_a_refused_instance_is_not_called_attached(state, link):
    link.add(attachment("i1"))
    gateway = FakeGateway(state / "attach.sock")
    gateway.hear({"ok": False, "error": "no such policy"})
    link.add(attachment("i2"))
    gateway.hear()
    until(lambda: link.attached("i2"))
    assert not link.attached("i1")
    gateway.close()


class RealGateway:
    def __init__(self, state: Path) -> None:
        code = (
            "import sys; from pathlib import Path; from clawback import log; log.configure()\n"
            "from clawback.enforcement.gateway.main import serve\n"
            f"serve(Path({str(state)!r}), uid=None, resolve={{}}, allow_private=(), peers=())"
        )
        self.process = subprocess.Popen([sys.executable, "-c", code])

    def end(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()


def hear(descriptor: int, word: str) -> None:
    import time

    end = time.monotonic() + 15
    text = ""
    while word not in text:
        assert time.monotonic() < end, f"the agent never said {word!r}"
        if select.select([descriptor], [], [], 1)[0]:
            text = os.read(descriptor, 4096).decode()


@pytest.mark.kernel
def test_the_real_gateway_answers_agents_before_and_after_both_were_restarted(core):
    gateway = RealGateway(core.state)
    try:
        info, out = core.launch(ASK)
        hear(out, "gateway 403")
        core.until(lambda: core.client.health()["without_gateway"] == [])
        gateway.end()
        hear(out, "silent")
        gateway = RealGateway(core.state)
        hear(out, "gateway 403")
        core.end(signal.SIGKILL)
        core.start()
        gateway.end()
        hear(out, "silent")
        gateway = RealGateway(core.state)
        hear(out, "gateway 403")
        core.until(lambda: core.client.health()["without_gateway"] == [])
        assert core.client.agent(info.agent).instance == info.instance
    finally:
        gateway.end()
