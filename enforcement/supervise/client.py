"""The supervisor's desk as Python calls: escalations listed and answered, agents handed over, everything refused."""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path
from typing import Any

from clawback.enforcement.supervise.desk import PACKET
from clawback.errors import ClawbackError, InvalidInput, NotEnforced, NotFound, Unreachable

__all__ = ["SupervisorClient"]

_ERRORS: dict[str, type[ClawbackError]] = {
    kind.__name__: kind for kind in (InvalidInput, NotFound, NotEnforced, ClawbackError)
}


class SupervisorClient:
    """One connection a call. `Unreachable` where nobody supervises: then the shims refuse every escalated call."""

    def __init__(self, state: Path, *, timeout: float = 5.0) -> None:
        self._path = state / "run" / "supervisor.sock"
        self._timeout = timeout

    def escalations(self) -> tuple[dict[str, Any], ...]:
        """What waits for a person, oldest first, 100 at most: id, agent, instance, call, arguments, pid, tid, exe,
        asked_ns, expires_in_seconds. All text of an agent's is escaped and bounded.
        """
        return tuple(self._call({"do": "list"})["escalations"])

    def answer(self, id_: str, *, allow: bool, by: str, reason: str) -> dict[str, Any]:
        """Answer one question; the question with `outcome`: `done`, `let go`, `denied`, `the call is gone` or
        `failed: …`. `NotFound` where it is not pending (any more).
        """
        return self._call({"do": "answer", "id": id_, "allow": allow, "by": by, "reason": reason})

    def attach(self, folder: str) -> bool:
        """Supervise the instance of this folder; False where it escalates nothing, or its shim did not answer."""
        return bool(self._call({"do": "attach", "folder": folder})["supervised"])

    def refuse(self, agent: str, *, by: str, reason: str) -> dict[str, Any]:
        """Refuse everything that this agent escalates from now on, what waits for a person too. Durable, and in force,
        on return: the `status` of the agent, with `refused` true.
        """
        return self._call({"do": "refuse", "agent": agent, "by": by, "reason": reason})

    def decide(self, agent: str, *, by: str, reason: str) -> dict[str, Any]:
        """Decide them again; a hold bars them still. Its `status`, with `refused` false."""
        return self._call({"do": "decide", "agent": agent, "by": by, "reason": reason})

    def status(self, agent: str = "") -> dict[str, Any]:
        """`pid`, `since_ns`, `supervised` (how many instances), `pending`, and `agents`: for each agent, instance,
        barred (why nothing is allowed, or empty), pending, and counters. `refused` where one agent was asked for.
        """
        return self._call({"do": "status", "agent": agent})

    def _call(self, request: dict[str, Any]) -> dict[str, Any]:
        # Through the folder's descriptor: a socket's path may have 107 bytes at most.
        try:
            folder = os.open(self._path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as sock:
                    sock.settimeout(self._timeout)
                    sock.connect(f"/proc/self/fd/{folder}/{self._path.name}")
                    sock.send(json.dumps(request).encode())
                    answer = json.loads(sock.recv(PACKET))
            finally:
                os.close(folder)
        except (OSError, ValueError) as error:
            raise Unreachable(
                f"the supervisor does not answer at {self._path}: {error}",
                hint="the core starts it with the first agent whose policy escalates; without it they are refused",
            ) from None
        if "error" in answer:
            raise _ERRORS.get(answer["type"], ClawbackError)(str(answer["error"]), hint=str(answer["hint"]))
        return dict(answer)
