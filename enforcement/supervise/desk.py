"""`STATE/run/supervisor.sock`: one JSON object a packet (SOCK_SEQPACKET) from root or our own user, one answer each."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import struct
from pathlib import Path
from typing import Any

from clawback.enforcement.kernel import namespaces

__all__ = ["PACKET", "Desk", "Visitor", "trusted"]

PACKET = 131_072
_MOST_VISITORS = 64
_UCRED = struct.Struct("=iII")


def trusted(peer: socket.socket) -> bool:
    """Whether root or our own user is at the other end, by the kernel's word at connect time.

    Without root an agent has our own user id, in a user namespace that it cannot leave: such a one is nobody.
    """
    pid, uid, _gid = _UCRED.unpack(peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))
    return uid in {0, os.geteuid()} and namespaces.at_home(pid)


class Visitor:
    """One connection. Never waited for: an answer that its buffer has no room for ends it."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.gone = False
        self.core = False  # a core that watches us, and will start another should we end

    def fileno(self) -> int:
        """To be polled."""
        return self.sock.fileno()

    def read(self) -> dict[str, Any] | None:
        """The next request; None at the end. `ValueError` for a packet that is none."""
        try:
            data = self.sock.recv(PACKET)
        except BlockingIOError:
            return {}
        except OSError:
            return None
        if not data:
            return None
        found = json.loads(data)
        if not isinstance(found, dict):
            raise ValueError("not an object")  # noqa: TRY004 - one error for whatever is no request
        return found

    def answer(self, what: dict[str, Any]) -> None:
        """Send it, if the visitor is still there."""
        if self.gone:
            return
        try:
            self.sock.send(json.dumps(what).encode(), socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
        except OSError:
            self.gone = True

    def close(self) -> None:
        """It is over."""
        self.gone = True
        self.sock.close()


class Desk:
    """The listening side. The socket appears under its name when it can be connected to."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.visitors: dict[int, Visitor] = {}
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        new = path.with_name(f".{path.name}.new")
        new.unlink(missing_ok=True)
        self.sock.bind(str(new))
        new.chmod(0o600)
        self.sock.listen(64)
        self.sock.setblocking(False)
        new.rename(path)

    def admit(self) -> Visitor | None:
        """Whoever knocks, if the kernel says that it may."""
        try:
            peer, _ = self.sock.accept()
        except OSError:
            return None
        if not trusted(peer) or len(self.visitors) >= _MOST_VISITORS:
            peer.close()
            return None
        peer.setblocking(False)
        visitor = Visitor(peer)
        self.visitors[visitor.fileno()] = visitor
        return visitor

    def dismiss(self, visitor: Visitor) -> None:
        """It went, or has to go."""
        self.visitors.pop(visitor.fileno(), None)
        visitor.close()

    def close(self) -> None:
        """No more."""
        with contextlib.suppress(FileNotFoundError):
            self.path.unlink()
        for visitor in list(self.visitors.values()):
            self.dismiss(visitor)
        self.sock.close()
