"""The world outside a process that is killed: it lives on in the parent, and every call to it goes through a pipe.

So a life can be cut off before a call, after its effect and before its answer, or in the middle of anything. What is
wrong with a part for a while (`Fault`) is decided here too, where the truth is known.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
import pickle
import socket
import struct
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from clawback.connectors.documents import FileDocuments
from clawback.errors import ClawbackError, NotEnforced, Unreachable
from clawback.model import Enforcement, EvidenceBundle, LevelResult, PolicyVersion
from clawback.world import World

__all__ = ["KINDS", "PARTS", "Fault", "Outside", "world_over"]

PARTS = ("core", "policies", "tickets", "orders_or_none", "vault_or_none", "vault_records_or_none")
PARTS += ("telemetry_or_none", "reviews_or_none")
KINDS = ("down", "failing", "hanging", "slow", "lying")

_MUTATING = {
    "contain",
    "release",
    "relaunch",
    "evidence",
    "put",
    "restore",
    "write",
    "token_create",
    "token_revoke",
    "leases_revoke",
    "lease_revoke",
    "place",
    "lift",
}


@dataclass(frozen=True)
class Fault:
    """One part, for the calls from the `first` to the `last` that it is asked.

    down, failing   nothing is done, and nothing or an error is answered
    hanging         it is done, and the answer does not come in time
    slow            it is done, late
    lying           what changes something is answered as if it had been done, and is not
    """

    part: str
    kind: str
    first: int
    last: int


def _believable(method: str, there: Any, args: tuple[Any, ...]) -> Any:
    """What the part would have answered."""
    if method == "contain":
        return LevelResult(level=args[1], enforcement=Enforcement.FULL, observed="done, believe me")
    if method == "release":
        return ()
    if method == "relaunch":
        info = there.core.known[args[0]]
        return dataclasses.replace(info, instance=info.instance + "-made-up", hold=None)
    if method == "evidence":
        return EvidenceBundle(folder="/nowhere", manifest="manifest.json", sha256="0" * 64, files=3, bytes=3)
    if method == "restore":
        return there.policies.versions(args[0])[args[1] - 1]
    if method == "put" and args[0] not in there.policies.texts:
        text = hashlib.sha256(args[1].encode()).hexdigest()
        return PolicyVersion(
            policy=args[0], version=1, sha256=text, author="", reason="", created_ns=1, known_good=True
        )
    if method == "put":
        return there.policies.active(args[0])
    if method == "write":
        return {"markdown": "/nowhere.md", "jira": "/nowhere.json"}
    if method == "token_create":
        return "made-up", "acc-made-up"
    if method == "place":
        return (args[0],), 0
    return None


class Outside:
    """Serves one life after another. `there` is the world in memory; `calls` counts what changed it, by method."""

    def __init__(self, there: Any) -> None:
        self.there = there
        self.own: Mapping[str, Any] = getattr(there, "own", {})
        documents = FileDocuments(there.core.folder / "compliance")
        there.world = dataclasses.replace(there.world, documents_or_none=documents)
        self.parts = {name: getattr(there.world, name) for name in PARTS}
        self.faults: tuple[Fault, ...] = ()
        self.asked: dict[str, int] = {}
        self.lied = 0

    def live(self, life: Callable[[World], None], *, patience: float, kill_after: float = 0.0) -> int:
        """Fork, let `life` run on this world, and serve it to its end; how it ended (a negative number: the signal).

        `kill_after` seconds it is killed from outside, wherever it is.
        """
        self.asked = dict.fromkeys(PARTS, 0)
        ours, theirs = socket.socketpair()
        pid = os.fork()
        if pid == 0:
            status = 70
            try:
                ours.close()
                life(world_over(theirs, self.there.world, self.own))
                status = 0
            except BaseException:
                import traceback

                traceback.print_exc()
            finally:
                os._exit(status)
        theirs.close()
        deadline = time.monotonic() + patience
        end = time.monotonic() + kill_after if kill_after else deadline
        with ours:
            ours.settimeout(max(0.0001, end - time.monotonic()))
            try:
                while (request := _receive(ours)) is not None:
                    _send(ours, self._answer(*request))
                    ours.settimeout(max(0.0001, end - time.monotonic()))
            except TimeoutError:
                os.kill(pid, 9)
            except (BrokenPipeError, ConnectionResetError):
                pass
        _, ended = os.waitpid(pid, 0)
        if time.monotonic() >= deadline:
            raise AssertionError("a life hung")
        return os.waitstatus_to_exitcode(ended)

    def _answer(self, part: str, method: str, args: Any, kwargs: Any) -> tuple[bool, Any]:
        self.asked[part] += 1
        fault = next(
            (one for one in self.faults if one.part == part and one.first <= self.asked[part] <= one.last), None
        )
        kind = fault.kind if fault else ""
        if kind in {"down", "failing"}:
            return False, Unreachable(f"{part} is {kind}")
        if kind == "lying" and method in _MUTATING:
            self.lied += 1
            return True, _believable(method, self.there, args)
        if kind == "slow":
            time.sleep(0.002)
        try:
            answer = getattr(self.parts[part], method)(*args, **kwargs)
        except ClawbackError as error:
            return False, error
        except OSError as error:  # its disk is full
            return False, NotEnforced(f"{part}: {error.strerror}")
        except Exception as error:  # the world's own defect: the life shall say so
            return False, error
        if kind == "hanging":
            return False, Unreachable(f"{part} did not answer in time")
        return True, answer


def _send(sock: socket.socket, value: Any) -> None:
    data = pickle.dumps(value)
    sock.sendall(struct.pack("<I", len(data)) + data)


def _receive(sock: socket.socket) -> Any:
    head = _exactly(sock, 4)
    return None if head is None else pickle.loads(_exactly(sock, struct.unpack("<I", head)[0]) or b"")  # noqa: S301 - our own child's


def _exactly(sock: socket.socket, size: int) -> bytes | None:
    data = b""
    while len(data) < size:
        piece = sock.recv(size - len(data))
        if not piece:
            return None
        data += piece
    return data


class _Part:
    """A part as the killed process sees it."""

    def __init__(self, name: str, like: Any, sock: socket.socket, lock: threading.Lock) -> None:
        self._name, self._like, self._sock, self._lock = name, like, sock, lock

    def __getattr__(self, method: str) -> Any:
        if method == "prepare":
            return lambda: None
        if not callable(setting := getattr(self._like, method)):
            return setting

        def call(*args: Any, **kwargs: Any) -> Any:
            TICK[0](f"before {self._name}.{method}")
            with self._lock:
                _send(self._sock, (self._name, method, args, kwargs))
                good, value = _receive(self._sock)
            TICK[0](f"after {self._name}.{method}")
            if not good:
                raise value
            return value

        return call


class Own:
    """A part that is the killed process's own: it may be cut off before and after each of its calls too."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._inner, name)
        if not callable(found):
            return Own(found) if type(found).__name__.endswith("Connector") else found

        def call(*args: Any, **kwargs: Any) -> Any:
            TICK[0](f"before {name}")
            answer = found(*args, **kwargs)
            TICK[0](f"after {name}")
            return answer

        return call


TICK: list[Callable[[str], None]] = [lambda _: None]
"""Called at every border that a life crosses; whoever runs the life sets it."""


def world_over(sock: socket.socket, like: World, own: Mapping[str, Any]) -> World:
    """The world whose parts are at the other end, but for those that are its `own`; the settings in it stay."""
    lock = threading.Lock()
    parts = {name: _Part(name, getattr(like, name), sock, lock) for name in PARTS if name not in own}
    return dataclasses.replace(like, **parts, **{name: Own(part) for name, part in own.items()})
