"""A sandbox that waits for its command, or is being made: the core's end of it."""

from __future__ import annotations

import contextlib
import socket
from dataclasses import dataclass
from typing import Any

from clawback.enforcement.kernel import namespaces
from clawback.enforcement.kernel.cgroups import Leaf
from clawback.enforcement.sandbox import layers, wire
from clawback.enforcement.sandbox.folder import Folder
from clawback.model import Enforcement

__all__ = ["Caged", "Failed", "Slot"]


class Failed(Exception):
    """The shim says why there is no sandbox. `number` is an errno."""

    def __init__(self, message: dict[str, Any]) -> None:
        super().__init__(str(message["error"]))
        self.number = int(message["errno"] or 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Caged:
    """A finished cage: its first process, its shim, its groups, and how much of it is seen to hold."""

    pid: int
    shim: int
    leaf: Leaf
    layers: dict[str, Enforcement]


@dataclass(slots=True)
class Slot:
    """`sock` leads to its shim, `folder` is its own."""

    name: str
    uid: int
    sock: socket.socket
    folder: Folder
    caged: Caged | None = None
    failed: Failed | None = None

    def is_ready(self) -> bool:
        """Whether its shim has said that it is finished and waits, or why it is not."""
        if self.caged:
            return True
        try:
            return bool(self.sock.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT))
        except BlockingIOError:
            return False

    def hear(self) -> tuple[dict[str, Any], list[int]]:
        """Its next word. `Failed` where it says that there is no sandbox, `wire.Closed` or `OSError` if it died."""
        if self.failed:
            raise self.failed
        message, fds = wire.receive(self.sock)
        if "error" in message:
            self.failed = Failed(message)
            raise self.failed
        return message, fds

    def await_cage(self) -> Caged:
        """The finished cage, looked at from outside; fails as `hear` does."""
        if self.caged is None:
            message, _ = self.hear()
            leaf = Leaf(message["about"]["unified"], message["about"]["controllers"])
            pid = int(message["ready"])
            seen = layers.observe_cage(pid, leaf=leaf, own=namespaces.own())
            self.caged = Caged(pid=pid, shim=int(message["shim"]), leaf=leaf, layers=seen)
        return self.caged

    def dismiss(self) -> None:
        """Give it up and wait until nothing of it is left."""
        with self.sock, contextlib.suppress(OSError):
            self.sock.shutdown(socket.SHUT_WR)
            self.sock.settimeout(5)
            while self.sock.recv(4096):
                pass
        self.folder.remove()
