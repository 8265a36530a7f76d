"""The one way that may stay while an agent is isolated: to destinations named in an order, by a process of its own.

It takes the gateway's place at the agent's listener and speaks as much of a proxy as a CONNECT needs. A destination is
an address and a port, compared as text with the order; no name is looked up. Nothing else of what the agent writes is
read, only passed on. It has no rights and no user but nobody, and ends with the sandbox.
"""

from __future__ import annotations

import contextlib
import os
import re
import select
import signal
import socket
import threading
from typing import Any, NoReturn

from clawback.enforcement.kernel import capabilities, libc
from clawback.enforcement.quarantine import tree
from clawback.enforcement.sandbox import door
from clawback.enforcement.sandbox.record import Sandbox

__all__ = ["MARK", "run", "split"]

MARK = b"Clawback: isolated"
"""A header of each answer, by which a proof knows who answered."""

_NOBODY = 65534
_HEAD = 2048
_SECONDS, _IDLE_SECONDS = 5.0, 300.0
_AT_ONCE = 16
_CONNECT = re.compile(rb"CONNECT ([0-9A-Fa-f.:\[\]]{3,60}) HTTP/1\.[01]\r\n")
_PR_SET_NAME = 15


def run(*, box: dict[str, Any], allow: list[str]) -> dict[str, int]:
    """Leave the relay behind, serving `ADDRESS:PORT`s; its `pid` and `ticks` (start)."""
    sandbox = Sandbox(**box)
    listener = socket.socket(fileno=door.fetch_listener(sandbox))
    first, second = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            _detach(listener.fileno(), second)
            agent = os.pidfd_open(sandbox.pid)
            if tree.start_ticks(sandbox.pid) == sandbox.start_ticks:
                _drop()
                os.close(second)
                _serve(listener, agent, {one.encode(): split(one) for one in allow})
        finally:
            os._exit(0)
    os.close(second)
    os.read(first, 1)  # it serves from here on
    return {"pid": pid, "ticks": tree.start_ticks(pid)}


def split(destination: str) -> tuple[str, int]:
    """`192.0.2.1:443` or `[2001:db8::1]:443` as an address and a port."""
    host, _, port = destination.rpartition(":")
    return host.removeprefix("[").removesuffix("]"), int(port)


def _detach(*kept: int) -> None:
    os.setsid()
    libc.prctl(_PR_SET_NAME, "clawback-relay")
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
    os.chdir("/")
    start = 0
    for descriptor in sorted(kept):
        libc.close_range(start, descriptor - 1)
        start = descriptor + 1
    libc.close_range(start)


def _drop() -> None:
    if os.getuid() == 0:
        capabilities.drop_bounding()
        os.setgroups([])
        os.setresgid(_NOBODY, _NOBODY, _NOBODY)
        os.setresuid(_NOBODY, _NOBODY, _NOBODY)
    capabilities.drop_all()
    capabilities.no_new_privileges()


def _serve(listener: socket.socket, agent: int, allow: dict[bytes, tuple[str, int]]) -> NoReturn:
    room = threading.Semaphore(_AT_ONCE)
    listener.setblocking(False)
    while True:
        ready, _, _ = select.select([listener.fileno(), agent], [], [])
        if agent in ready:
            os._exit(0)
        with contextlib.suppress(OSError):
            connection, _ = listener.accept()
            if room.acquire(blocking=False):
                threading.Thread(target=_answer, args=(connection, allow, room), daemon=True).start()
            else:
                connection.close()


def _answer(connection: socket.socket, allow: dict[bytes, tuple[str, int]], room: threading.Semaphore) -> None:
    try:
        with connection, contextlib.suppress(OSError):
            connection.settimeout(_SECONDS)
            head = b""
            while b"\r\n\r\n" not in head and len(head) < _HEAD and (more := connection.recv(_HEAD - len(head))):
                head += more
            asked = _CONNECT.match(head)
            goal = allow.get(asked[1]) if asked else None
            if goal is None:
                connection.sendall(b"HTTP/1.1 403 Forbidden\r\n" + MARK + b"\r\nContent-Length: 0\r\n\r\n")
                return
            try:
                far = _reached(goal)
            except OSError:
                connection.sendall(b"HTTP/1.1 502 Bad Gateway\r\n" + MARK + b"\r\nContent-Length: 0\r\n\r\n")
                return
            with far:
                connection.sendall(b"HTTP/1.1 200 OK\r\n" + MARK + b"\r\n\r\n")
                far.sendall(head.partition(b"\r\n\r\n")[2])
                _pass_on(connection, far)
    finally:
        room.release()


def _reached(goal: tuple[str, int]) -> socket.socket:
    """Connected. Not by `create_connection`: that loads a codec for names, which nobody may not read everywhere."""
    far = socket.socket(socket.AF_INET6 if ":" in goal[0] else socket.AF_INET)
    try:
        far.settimeout(_SECONDS)
        far.connect(goal)
    except BaseException:
        far.close()
        raise
    return far


def _pass_on(near: socket.socket, far: socket.socket) -> None:
    """Both ways until one side ends, or nothing comes for long."""
    other = {near: far, far: near}
    while True:
        ready, _, _ = select.select(list(other), [], [], _IDLE_SECONDS)
        for one in ready:
            data = one.recv(1 << 16)
            if not data:
                return
            other[one].sendall(data)
        if not ready:
            return
