"""Answers what the gateway, which has no rights, must know of an agent: who is calling, and what a placeholder means.

The core hands the gateway one end of a socket pair over the link by which it hands it listeners: whoever is given
agents' ways out is the one that may ask, and nobody else can. One JSON object in each packet, `id` is the asker's:

    {"id", "ask": "holders", "instance", "local": [ADDRESS, PORT], "remote": [ADDRESS, PORT]}
        → {"id", "holders": [{"pid", "program": [PATH, SHA256, CHANGED], "ancestors": [[PATH, SHA256, CHANGED], …]}, …]}
    {"id", "ask": "secret", "instance", "name"}
        → {"id", "value", "hosts": [HOST, …]}
    {"id", "ask": "hosts", "instance"}
        → {"id", "hosts": [HOST, …]}, those of all its placeholders
    anything that has no answer
        → {"id", "error": WHY}
"""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import astuple
from typing import Any

import structlog

from clawback.enforcement.core.identify import Identifier, Program
from clawback.enforcement.sandbox.record import Sandbox
from clawback.errors import ClawbackError, InvalidInput

__all__ = ["Desk"]

_MOST_BYTES = 128 * 1024
_THREADS = 4
_WAITING = 64
_log = structlog.get_logger()


class Desk:
    """`find(instance)` gives a running sandbox, `secret(instance, name)` a value and the hosts it is for, `hosts` those
    of all values; they raise `ClawbackError` where there is none.
    """

    def __init__(
        self,
        find: Callable[[str], Sandbox],
        secret: Callable[[str, str], tuple[str, tuple[str, ...]]],
        hosts: Callable[[str], tuple[str, ...]],
    ) -> None:
        self._find = find
        self._secret = secret
        self._hosts = hosts
        self.identifier = Identifier()
        self._lock = threading.Lock()
        self._ours: socket.socket | None = None
        self._pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="desk")
        self._room = threading.BoundedSemaphore(_WAITING)

    def open(self) -> socket.socket:
        """The asker's end, the caller's to hand over and close. An earlier one is answered no more."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        for one in (ours, theirs):
            one.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 2 * _MOST_BYTES)
        with self._lock:
            before, self._ours = self._ours, ours
        if before is not None:
            _end(before)
        threading.Thread(target=self._serve, args=(ours,), name="desk", daemon=True).start()
        return theirs

    def close(self) -> None:
        """Answer nothing more."""
        with self._lock:
            before, self._ours = self._ours, None
        if before is not None:
            _end(before)
        self._pool.shutdown(wait=True, cancel_futures=True)

    def _serve(self, sock: socket.socket) -> None:
        try:
            while packet := sock.recv(_MOST_BYTES):
                # No more than so many at once: a gateway that asks without end waits in its own socket.
                self._room.acquire()
                self._pool.submit(self._reply, sock, packet).add_done_callback(lambda _: self._room.release())
        except (OSError, RuntimeError):  # a new desk, or none any more
            return

    def _reply(self, sock: socket.socket, packet: bytes) -> None:
        number = 0
        try:
            question = json.loads(packet)
            number = int(question["id"])
            answer = self._answer(question)
        except ClawbackError as error:
            answer = {"error": error.message}
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            answer = {"error": f"not a question: {type(error).__name__}"}
        except Exception as error:
            _log.error("desk failed", exc_info=error)
            answer = {"error": "the core failed"}
        try:
            sock.send(json.dumps({"id": number} | answer).encode())
        except OSError as error:
            _log.warning("the gateway did not take an answer", error=error.strerror)

    def _answer(self, question: dict[str, Any]) -> dict[str, Any]:
        match question["ask"]:
            case "holders":
                box = self._find(str(question["instance"]))
                local, remote = _end_of(question["local"]), _end_of(question["remote"])
                found = self.identifier.holders(box, local, remote)
                return {
                    "holders": [
                        {
                            "pid": one.pid,
                            "program": _plain(one.program),
                            "ancestors": [_plain(x) for x in one.ancestors],
                        }
                        for one in found
                    ]
                }
            case "secret":
                value, hosts = self._secret(str(question["instance"]), str(question["name"]))
                return {"value": value, "hosts": list(hosts)}
            case "hosts":
                return {"hosts": list(self._hosts(str(question["instance"])))}
            case _:
                raise InvalidInput("no such question")


def _plain(program: Program) -> list[Any]:
    return list(astuple(program))


def _end_of(value: Any) -> tuple[str, int]:
    address, port = value
    return str(address), int(port)


def _end(sock: socket.socket) -> None:
    try:
        sock.shutdown(socket.SHUT_RDWR)
    except OSError:
        return  # the gateway has ended
    finally:
        sock.close()
