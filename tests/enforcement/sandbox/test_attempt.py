"""Attempts see what the agent would see, are bounded, and say when they could not be made where the agent is."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from clawback.enforcement.policy.types import SandboxPolicy
from clawback.enforcement.sandbox.attempt import attempt
from clawback.errors import InvalidInput, NotFound
from clawback.model import Attempt

pytestmark = pytest.mark.kernel


def _try(sandboxes: Any, record: Any, *pairs: tuple[str, str]) -> list[tuple[bool, str]]:
    results = attempt(sandboxes.spawner, record, [Attempt(kind=kind, target=target) for kind, target in pairs])
    assert [(one.attempt.kind, one.attempt.target) for one in results] == list(pairs)
    return [(one.denied, one.detail) for one in results]


def test_each_kind_shows_the_agent_s_view(sandboxes: Any) -> None:
    record = sandboxes.launch("sleep", "300", secrets={"token": "x"}).record
    assert _try(
        sandboxes,
        record,
        ("open", "/run/secrets/token"),
        ("open", "/root/.aws/credentials"),
        ("open", "/etc/shadow"),
        ("open", "/"),
        ("syscall", "ptrace"),
        ("syscall", "unshare"),
        ("syscall", "io_uring_setup"),
        ("syscall", "no_such_call"),
        ("spawn", "/usr/bin/true"),
        ("spawn", "/no/such/program"),
    ) == [
        (False, "opened, readable"),
        (False, "opened, empty"),
        (True, "ENOENT"),
        (True, "EACCES"),
        (True, "EPERM"),
        (True, "EPERM"),
        (True, "EPERM"),
        (True, "ENOSYS: no such call on this machine"),
        (False, "started"),
        (True, "ENOENT"),
    ]
    (seen,) = _try(sandboxes, record, ("syscall", "getpid"))
    assert seen[0] is False


def _answer(listener: socket.socket, status: str, lines: list[str]) -> None:
    peer, _ = listener.accept()
    with peer:
        lines.append(peer.recv(4096).decode().splitlines()[0])
        peer.sendall(f"HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n".encode())


@pytest.mark.parametrize(
    ("kind", "target", "line"),
    [
        ("http", "GET http://api.example/v1", "GET http://api.example/v1 HTTP/1.1"),
        ("connect", "api.example:443", "CONNECT api.example:443 HTTP/1.1"),
        ("http", "POST https://api.example/v1", "CONNECT api.example:443 HTTP/1.1"),
    ],
)
@pytest.mark.parametrize(("status", "denied"), [("403 Forbidden", True), ("200 OK", False), ("502 Bad Gateway", False)])
def test_the_gateway_s_answer_decides(
    sandboxes: Any, kind: str, target: str, line: str, status: str, denied: bool
) -> None:
    launched = sandboxes.launch("sleep", "300")
    lines: list[str] = []
    with socket.socket(fileno=os.dup(launched.listener_fd)) as listener:
        listener.settimeout(10)
        gateway = threading.Thread(target=_answer, args=(listener, status, lines))
        gateway.start()
        ((was_denied, detail),) = _try(sandboxes, launched.record, (kind, target))
        gateway.join()
    assert (was_denied, lines) == (denied, [line])
    assert detail.endswith(f"HTTP {status}")


def test_silence_proves_nothing(sandboxes: Any) -> None:
    record = sandboxes.launch("sleep", "300").record
    assert _try(sandboxes, record, ("connect", "api.example:443")) == [(False, "no answer from the gateway")]


def test_no_gateway_is_a_denial(sandboxes: Any) -> None:
    record = sandboxes.launch("sleep", "300", policy=SandboxPolicy(name="test", network="none")).record
    assert _try(sandboxes, record, ("connect", "api.example:443")) == [(True, "EACCES")]


def test_a_call_that_blocks_is_given_up(sandboxes: Any) -> None:
    record = sandboxes.launch("sleep", "300").record
    assert _try(sandboxes, record, ("syscall", "pause")) == [(False, "no outcome in time")]


def test_calls_denied_later_are_denied_to_attempts_too(sandboxes: Any) -> None:
    record = sandboxes.launch("sleep", "300").record
    path = Path(record.folder, "restrictions.json")
    path.write_text(json.dumps(json.loads(path.read_text()) | {"deny": ["socket"]}))
    assert _try(sandboxes, record, ("syscall", "socket"), ("syscall", "getpid"))[0] == (True, "EPERM")


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: freezing is the cgroup's")
def test_a_frozen_agent_is_neither_waited_for_nor_thawed(sandboxes: Any) -> None:
    record = sandboxes.launch("sleep", "300").record
    freeze = Path(record.cgroup, "cgroup.freeze")
    freeze.write_text("1")
    try:
        assert _try(sandboxes, record, ("open", "/etc/shadow")) == [(True, "outside the frozen cgroup: ENOENT")]
        assert freeze.read_text().strip() == "1"
    finally:
        freeze.write_text("0")


def test_what_cannot_be_tried_is_said(sandboxes: Any) -> None:
    launched = sandboxes.launch("true")
    launched.wait(10)
    with pytest.raises(NotFound):
        _try(sandboxes, launched.record, ("open", "/"))
    with pytest.raises(InvalidInput, match="'dance'"):
        _try(sandboxes, launched.record, ("dance", "/"))


@pytest.mark.parametrize("inside", [False, True])
def test_nothing_of_the_agent_s_is_imported_by_whoever_comes_inside(sandboxes: Any, state: Path, inside: bool) -> None:
    """The folder is found in `sys.path` outside as inside, and the agent may write there."""
    folder = state / "work"
    folder.mkdir()
    (folder / "planted.py").write_text("print('planted code ran')")
    launched = sandboxes.launch("/bin/sleep", "60", writable=(str(folder),))
    script = """
import os, sys
from clawback.enforcement.kernel import namespaces
sys.path.insert(0, sys.argv[2])
if sys.argv[3] == "True":
    namespaces.enter(os.pidfd_open(int(sys.argv[1])))
    assert os.path.exists(sys.argv[2] + "/planted.py")
import sys, posixpath, errno
try:
    import planted
except ModuleNotFoundError:
    print("not found")
"""
    done = subprocess.run(
        [sys.executable, "-c", script, str(launched.record.pid), str(folder), str(inside)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.strip() == ("not found" if inside else "planted code ran"), done.stderr
