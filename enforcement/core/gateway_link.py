"""Hand every agent's listener to the gateway, and again whenever the gateway has been restarted.

`STATE/run/gateway-attach.sock` is a stream socket. One JSON line each way: `{"agent", "instance", "policy"}` and, where
they are known, `tenant`, `team` and `tags`, with the listeners as SCM_RIGHTS on its first byte, or `{"detach":
INSTANCE}`; the answer is `{"ok": true}` or `{"ok": false, "error": …}`. A new connection may lead to a new gateway,
which knows nothing, or to one that outlived a core and knows instances that have ended since: so everything is said
again on each.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import socket
import threading
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import structlog

from clawback.enforcement.core.desk import Desk

__all__ = ["Attachment", "GatewayLink"]

_RETRY_SECONDS = 0.2
_ANSWER_SECONDS = 5.0
_REMEMBERED = 1000
_log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class Attachment:
    """One instance's listening sockets, which are the link's from now on, and what orders go by."""

    agent: str
    instance: str
    policy: str
    listeners: tuple[int, ...]
    tenant: str | None = None
    team: str | None = None
    tags: tuple[str, ...] | None = None


class GatewayLink:
    """A thread that keeps the gateway's picture equal to the core's. `add` and `remove` return at once.

    `desk` answers what the gateway asks.
    """

    def __init__(self, path: Path, desk: Desk | None = None) -> None:
        self._path = path
        self._desk = desk
        self._lock = threading.Lock()
        self._wanted: dict[str, Attachment] = {}
        self._delivered: set[str] = set()
        self._gone: deque[str] = deque(maxlen=_REMEMBERED)
        self._connected = False
        self._refused: set[str] = set()
        self._suspended: set[str] = set()
        self._let_go: set[str] = set()
        self._absent = False
        self._closing = False
        self._pause = threading.Event()
        self._wake_read, self._wake_write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._thread = threading.Thread(target=self._run, name="gateway link", daemon=True)

    def start(self) -> None:
        """Begin to connect."""
        self._thread.start()

    def add(self, attachment: Attachment) -> None:
        """Deliver this one, now or as soon as there is a gateway."""
        with self._lock:
            self._wanted[attachment.instance] = attachment
        self._wake()

    def remove(self, instance: str) -> None:
        """Close the instance's listeners and have the gateway do so too."""
        with self._lock:
            attachment = self._wanted.pop(instance, None)
            self._gone.append(instance)
            self._suspended.discard(instance)
        if attachment is not None:
            _close(attachment.listeners)
            self._wake()

    def suspend(self, instance: str, *, patience: float = 1.0) -> bool:
        """Have the gateway let go of an instance and reset what it has open, keeping the listener for `resume`.

        Whether `suspended` became true within `patience` seconds.
        """
        with self._lock:
            self._suspended.add(instance)
        self._wake()
        end = time.monotonic() + patience
        while not self.suspended(instance):
            if time.monotonic() > end:
                return False
            self._pause.wait(0.001)
        return True

    def resume(self, instance: str) -> None:
        """Deliver it again."""
        with self._lock:
            self._suspended.discard(instance)
        self._wake()

    def suspended(self, instance: str) -> bool:
        """It is kept away, and the gateway has said that it let go, or there is no gateway at all."""
        return instance in self._suspended and (self._absent or (self._connected and instance in self._let_go))

    def attached(self, instance: str) -> bool:
        """The gateway has acknowledged this instance."""
        return self._connected and instance in self._delivered and instance not in self._refused

    @property
    def connected(self) -> bool:
        """A gateway is there."""
        return self._connected

    @property
    def alive(self) -> bool:
        """The thread runs."""
        return self._thread.is_alive()

    def close(self) -> None:
        """Disconnect; the shims keep the listeners."""
        self._closing = True
        self._pause.set()
        self._wake()
        self._thread.join(_ANSWER_SECONDS + 1.0)
        with self._lock:
            for attachment in self._wanted.values():
                _close(attachment.listeners)
            self._wanted.clear()
        os.close(self._wake_read)
        os.close(self._wake_write)

    def _wake(self) -> None:
        with contextlib.suppress(BlockingIOError):  # a full pipe wakes as well
            os.write(self._wake_write, b"x")

    def _run(self) -> None:
        while not self._closing:
            try:
                with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as link:
                    link.settimeout(_ANSWER_SECONDS)
                    link.connect(str(self._path))
                    self._absent = False
                    self._connected = True
                    _log.info("gateway connected")
                    self._open_desk(link)
                    self._serve(link)
            except (OSError, ValueError) as error:
                # Its socket without a listener, or none: the process is gone, and with it every connection it had.
                self._absent = isinstance(error, (ConnectionRefusedError, FileNotFoundError))
                if self._connected:
                    _log.warning("gateway lost", error=str(error)[:200])
            finally:
                self._connected = False
                self._delivered.clear()
                self._refused.clear()
                self._let_go.clear()
            if not self._closing:
                self._pause.wait(_RETRY_SECONDS)

    def _serve(self, link: socket.socket) -> None:
        for instance in (*self._gone, *self._suspended):
            self._detach(link, instance)
        while not self._closing:
            with self._lock:
                wanted = self._wanted.keys() - self._suspended
                gone = (self._delivered - wanted) | (self._suspended - self._let_go)
                new = [item for name, item in self._wanted.items() if name in wanted - self._delivered]
            for instance in gone:
                self._detach(link, instance)
            for item in new:
                self._attach(link, item)
            with self._lock:
                if self._wanted.keys() - self._suspended != self._delivered or self._suspended - self._let_go:
                    continue
            poll = select.poll()
            poll.register(link, select.POLLIN)
            poll.register(self._wake_read, select.POLLIN)
            ready = {descriptor for descriptor, _ in poll.poll()}
            if link.fileno() in ready:
                raise ConnectionResetError("the gateway closed the connection, or spoke unasked")
            if self._wake_read in ready:
                os.read(self._wake_read, 4096)

    def _open_desk(self, link: socket.socket) -> None:
        """Let this gateway ask; one that does not want to has no answers, and denies what it would need them for."""
        if self._desk is not None:
            with self._desk.open() as theirs:
                self._send(link, {"desk": True}, (theirs.fileno(),))
            self._answer(link, "desk")

    def _detach(self, link: socket.socket, instance: str) -> None:
        self._send(link, {"detach": instance}, ())
        if not self._answer(link, instance):
            raise ConnectionResetError("the gateway refused to let an instance go")
        if instance in self._suspended:
            self._let_go.add(instance)
        self._delivered.discard(instance)
        self._refused.discard(instance)

    def _attach(self, link: socket.socket, item: Attachment) -> None:
        # Held while sending: `remove` closes the listeners, and a closed number could be another file by then.
        with self._lock:
            if item.instance not in self._wanted or item.instance in self._suspended:
                return
            self._send(link, _said(item), item.listeners)
        if not self._answer(link, item.instance):
            self._refused.add(item.instance)
        self._let_go.discard(item.instance)
        self._delivered.add(item.instance)

    @staticmethod
    def _send(link: socket.socket, message: Mapping[str, Any], descriptors: tuple[int, ...]) -> None:
        line = json.dumps(message).encode() + b"\n"
        sent = socket.send_fds(link, [line], list(descriptors)) if descriptors else link.send(line)
        if sent < len(line):
            link.sendall(line[sent:])

    @staticmethod
    def _answer(link: socket.socket, subject: str) -> bool:
        line = b""
        while not line.endswith(b"\n"):
            part = link.recv(4096)
            if not part or len(line) > 65_536:
                raise ConnectionResetError("the gateway closed the connection without an answer")
            line += part
        answer = json.loads(line)
        if isinstance(answer, dict) and answer.get("ok") is True:
            return True
        # Said once and not repeated in a loop: the instance has no way out, which is the safe side.
        reason = answer.get("error", "") if isinstance(answer, dict) else ""
        _log.error("gateway refused an instance", subject=subject, error=str(reason)[:500])
        return False


def _said(item: Attachment) -> dict[str, Any]:
    """What is not known is left out: the gateway then takes the agent for one in every scope."""
    labels = {"tenant": item.tenant, "team": item.team, "tags": item.tags}
    known = {key: value for key, value in labels.items() if value is not None}
    return {"agent": item.agent, "instance": item.instance, "policy": item.policy, **known}


def _close(descriptors: tuple[int, ...]) -> None:
    for descriptor in descriptors:
        with contextlib.suppress(OSError):  # closed already
            os.close(descriptor)
